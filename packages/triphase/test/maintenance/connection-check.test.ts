import { randomBytes } from 'node:crypto'
import { describe, expect, onTestFinished, test } from 'vitest'
import { type EngineOptions, resolveConfig } from '../../src/config.ts'
import { defineTask, unchecked } from '../../src/index.ts'
import { type ConnectionUse, checkConnections } from '../../src/maintenance/connection-check.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { insertProcess } from '../support/store-jobs.ts'

const bench = useEngines()

/** What is warned of at the start of an engine with these options. */
async function warningsOf(
  options: EngineOptions,
  { reachesServer = true, ...use }: Partial<ConnectionUse> & { reachesServer?: boolean } = {},
): Promise<string[]> {
  const { database, schema } = bench.schema
  const config = resolveConfig({
    url: testDatabaseUrl(),
    schema,
    name: 'test',
    queues: { work: 10 },
    ...options,
  })
  const telemetry = new Telemetry()
  const warnings: string[] = []
  telemetry.on('config:warning', ({ message }) => warnings.push(message))
  await checkConnections(
    { config, database, ownsApplication: true, listens: true, ...use },
    telemetry,
    reachesServer,
  )
  return warnings
}

/** A role that is no superuser, with so many connections; its URL. */
async function roleWith(limit: number): Promise<{ role: string; url: string }> {
  const role = `checked_${randomBytes(4).toString('hex')}`
  await bench.schema.database.query(`CREATE ROLE ${role} LOGIN CONNECTION LIMIT ${limit}`)
  onTestFinished(async () => {
    await bench.schema.database.query(`DROP ROLE ${role}`)
  })
  const url = new URL(testDatabaseUrl())
  url.username = role
  return { role, url: url.href }
}

describe('more connections than there may be', () => {
  test('max_connections: of one process, with what others have open', async () => {
    const [warning, ...more] = await warningsOf({ application: { size: 400 } })
    expect(warning).toMatch(
      /^This process may open 407 connections, and others have \d+ open: more than the \d+ that max_connections leaves/,
    )
    expect(warning).toMatch(
      /Make engine\.size \(6\) and application\.size \(400\) smaller, raise max_connections, or put/,
    )
    expect(more).toEqual([])
    expect(await warningsOf({})).toEqual([])
  })

  test('max_connections: times the processes of this name that stay', async () => {
    const { database } = bench.schema
    const ids = [await insertProcess(database), await insertProcess(database), await insertProcess(database)]
    await database.query(`UPDATE triphase.process SET stopping = true WHERE id = $1`, [ids[0]])
    const size = { application: { size: 150 } }
    expect(await warningsOf(size)).toEqual([
      expect.stringMatching(/^The 2 processes named test may open 314 connections \(157 each\)/),
    ])
    await database.query(`UPDATE triphase.process SET name = 'others' WHERE id = $1`, [ids[1]])
    expect(await warningsOf(size)).toEqual([])
  })

  test('the limit of a role counts the pools that log in with it', async () => {
    const { role, url } = await roleWith(12)
    const [warning, ...more] = await warningsOf({ application: { url, size: 13 } })
    expect(warning).toMatch(
      new RegExp(
        `This process may open 13 connections, and others have 0 open: more than the 12 that role ${role} may have`,
      ),
    )
    expect(warning).toMatch(new RegExp(`ALTER ROLE ${role} CONNECTION LIMIT`))
    expect(more).toEqual([])
    expect(await warningsOf({ application: { url, size: 12 } })).toEqual([])
    expect(await warningsOf({ engine: { url, size: 6 }, application: { url, size: 7 } })).toHaveLength(1)
  })

  test('the limit of a database holds for roles that are no superusers', async () => {
    const { database } = bench.schema
    const name = `checked_${randomBytes(4).toString('hex')}`
    await database.query(`CREATE DATABASE ${name} CONNECTION LIMIT 8`)
    onTestFinished(async () => {
      await database.query(`DROP DATABASE ${name}`)
    })
    const { url } = await roleWith(-1)
    const [own, everybody] = [url, testDatabaseUrl()].map((text) => {
      const at = new URL(text)
      at.pathname = name
      return at.href
    }) as [string, string]
    expect(await warningsOf({ application: { url: own, size: 9 } })).toEqual([
      expect.stringMatching(
        new RegExp(`9 connections.*the 8 that database ${name} may have.*ALTER DATABASE ${name}`),
      ),
    ])
    expect(await warningsOf({ application: { url: own, size: 8 } })).toEqual([])
    expect(await warningsOf({ application: { url: everybody, size: 9 } })).toEqual([])
  })

  test('nothing is said of pools that end at a pooler, or at another server, or are not the engine’s', async () => {
    const application = { size: 400 }
    const elsewhere = 'postgres://somebody@elsewhere.example/app'
    expect(await warningsOf({ application }, { reachesServer: false })).toEqual([])
    expect(await warningsOf({ application: { ...application, url: elsewhere } })).toEqual([])
    expect(await warningsOf({ application }, { ownsApplication: false })).toEqual([])
  })

  test('counts a connection to listen where directUrl leads elsewhere', async () => {
    const url = testDatabaseUrl()
    const directUrl = `${url}?keepalives=1`
    const engine = bench.engine({ url, directUrl, queues: { default: 1 }, application: { size: 400 } })
    const warned = engine.telemetry.next('config:warning')
    await engine.start()
    expect((await warned).message).toMatch(/^This process may open 404 connections,/)
  })

  test('is said once at the start of an engine, and keeps nothing from starting', async () => {
    const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => null })
    const url = testDatabaseUrl()
    const engine = bench.engine({ url, tasks: [task], queues: { default: 1 }, application: { size: 400 } })
    const warnings: string[] = []
    engine.telemetry.on('config:warning', ({ message }) => warnings.push(message))
    const warned = engine.telemetry.next('config:warning')
    const done = engine.telemetry.next('job:completed')
    await engine.start()
    await engine.enqueue(task, null)
    await Promise.all([warned, done])
    await engine.start()
    await engine.stop()
    expect(warnings).toEqual([expect.stringMatching(/^This process may open 403 connections,/)])
  })
})

describe('jobs that wait for the application pool in vain', () => {
  /** As if so many jobs of the queue had run, each with two checkouts. */
  async function ran(queue: string, holdMs: number, callMs: number): Promise<void> {
    await bench.schema.database.query(
      `INSERT INTO triphase.job_attempt (job_id, started_at, finished_at, claim_no, attempt, checkouts, wait_ms, hold_ms,
         longest_hold_ms, queue, task, outcome)
       SELECT n, now() - ($2::float8 + $3::float8) * interval '1 millisecond', now(), 1, 1, 2, 0, $2, $2, $1, 'task', 'completed'
       FROM generate_series(1, 10) n`,
      [queue, holdMs, callMs],
    )
  }

  test('are warned of where the pool is busy all the time, with the pool to set', async () => {
    await ran('work', 15_000, 1_000)
    const [warning, ...more] = await warningsOf({ queues: { work: 25 }, application: { size: 10 } })
    expect(warning).toMatch(
      /^Jobs that ran lately held a connection for 15000 ms each\. An application pool of 10 is busy/,
    )
    expect(warning).toMatch(/Set it to 25, or shorten the transactions/)
    expect(more).toEqual([])
    expect(await warningsOf({ queues: { other: 25 }, application: { size: 10 } })).toEqual([])
    expect(await warningsOf({ queues: { work: 25 }, application: { size: 25 } })).toEqual([])
  })

  test('are not warned of where each waits for milliseconds', async () => {
    await ran('work', 15, 1)
    expect(await warningsOf({ queues: { work: 25 }, application: { size: 10 } })).toEqual([])
  })

  test('are warned of where a transaction may wait for itself, and nobody would say so', async () => {
    const one = { application: { size: 1 } }
    expect(await warningsOf({ ...one, guard: { mode: 'off' } })).toEqual([
      expect.stringMatching(
        /has one connection, and the guard is off.*Set application: \{ size: 2 \} or more/,
      ),
    ])
    expect(await warningsOf({ ...one, guard: { mode: 'warn' } })).toEqual([])
    expect(await warningsOf({ ...one, guard: { mode: 'off' }, queues: {} })).toEqual([])
  })
})
