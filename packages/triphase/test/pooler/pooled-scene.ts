import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { expect, type TestContext } from 'vitest'
import { defineStagedTask, type Task, unchecked } from '../../src/index.ts'
import { type Scene, sceneOf } from '../liveness/scene.ts'
import { type LocalCountingApi, startCountingApi } from '../support/counting-api.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { type PgBouncer, type PgBouncerOptions, startPgBouncer } from '../support/pgbouncer.ts'

/** A PgBouncer, an API that is paid by the call, and an application that notes what it has paid for. */
export interface PooledScene {
  scene: Scene
  pgbouncer: PgBouncer
  api: LocalCountingApi
  /** Pays once, and writes the job down: twice for one job is an error of the database. */
  pay: Task<unknown, pg.PoolClient>
  /** Where the engine and the application connect to, through PgBouncer, each with a role of its own. */
  urls: Urls
  /** The same, past PgBouncer. */
  direct: Urls
  /** Waits until these jobs are done, and checks that each was paid for once, done once, and taken from nobody. */
  expectEachDoneOnce(ids: readonly string[]): Promise<void>
}

interface Urls {
  engine: { url: string }
  application: { url: string }
}

export async function pooledScene(
  context: TestContext,
  options: PgBouncerOptions = {},
): Promise<PooledScene> {
  const scene = await sceneOf(context)
  const pgbouncer = await startPgBouncer(testDatabaseUrl(), options)
  context.onTestFinished(() => pgbouncer.dispose())
  const api = await startCountingApi()
  context.onTestFinished(() => api.close())
  const table = `public.${scene.schema.schema}_paid`
  await scene.rows(`CREATE TABLE ${table} (job text PRIMARY KEY)`)
  context.onTestFinished(async () => {
    await scene.rows(`DROP TABLE ${table}`)
  })
  const role = await applicationRole(context, scene, table)
  const engine = { url: pgbouncer.url(testDatabaseUrl()) }
  return {
    scene,
    pgbouncer,
    api,
    pay: payTask(api, table),
    urls: { engine, application: { url: pgbouncer.url(role) } },
    direct: { engine: { url: testDatabaseUrl() }, application: { url: role } },
    async expectEachDoneOnce(ids) {
      // Jobs of a claim whose reply was lost are returned after 20 s.
      await scene.allDone(45_000)
      const done = await scene.rows(
        `SELECT id::text, state, crash_count FROM triphase.job_history ORDER BY job_history.id`,
      )
      expect(done).toEqual(ids.map((id) => ({ id, state: 'completed', crash_count: 0 })))
      expect(await scene.rows(`SELECT FROM ${table}`)).toHaveLength(ids.length)
      expect(api.calls).toBe(ids.length)
      expect(new Set(api.log.map(({ key }) => key)).size).toBe(ids.length)
    },
  }
}

function payTask(api: LocalCountingApi, table: string): Task<unknown, pg.PoolClient> {
  return defineStagedTask({
    name: 'pay',
    input: unchecked<unknown>(),
    backoff: { initial: '100ms', max: '500ms' },
    maxAttempts: 50,
    prepare: async ({ tx }: { tx: pg.PoolClient }) => {
      await tx.query(`SELECT FROM ${table} LIMIT 1`)
      return {}
    },
    call: async ({ job, idempotencyKey, signal }) => {
      const response = await fetch(`${api.url}/call`, {
        method: 'POST',
        headers: { 'idempotency-key': idempotencyKey },
        body: JSON.stringify({ key: job.id }),
        signal,
      })
      return response.json()
    },
    commit: async ({ tx, job }: { tx: pg.PoolClient; job: { id: string } }) => {
      await tx.query(`INSERT INTO ${table} (job) VALUES ($1)`, [job.id])
    },
  })
}

/** A role for the application, with the rights that docs/operating.md says; its URL. */
async function applicationRole(context: TestContext, scene: Scene, table: string): Promise<string> {
  const { schema } = scene.schema
  const role = `application_${randomBytes(4).toString('hex')}`
  for (const statement of [
    `CREATE ROLE ${role} LOGIN PASSWORD 'application'`,
    `GRANT USAGE ON SCHEMA ${schema} TO ${role}`,
    `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${schema} TO ${role}`,
    `GRANT USAGE ON ALL SEQUENCES IN SCHEMA ${schema} TO ${role}`,
    `GRANT SELECT, INSERT ON ${table} TO ${role}`,
  ])
    await scene.rows(statement)
  context.onTestFinished(async () => {
    // PgBouncer's connections of this role end with it; it is disposed of only after this.
    await scene.rows(`DROP OWNED BY ${role}`)
    await scene.rows(`DROP ROLE ${role}`)
  })
  const url = new URL(testDatabaseUrl())
  url.username = role
  url.password = 'application'
  return url.href
}
