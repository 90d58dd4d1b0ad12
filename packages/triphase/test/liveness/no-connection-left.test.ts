// A server of the tests' own that has few connections, all of which are taken: at the start, and while jobs run.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '@triphase/embedded'
import pg from 'pg'
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest'
import { createEngine, defineStagedTask, type EngineOptions, type Task, unchecked } from '../../src/index.ts'
import { eventually } from '../support/processes.ts'

const MOST = 12
const RESERVED = 3
const JOBS = 8
const REMEDY = /make the pools smaller.*raise the limit \(max_connections/

let server: Awaited<ReturnType<typeof startEmbeddedPostgres>>
let url: string
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'triphase-few-'))
  server = await startEmbeddedPostgres({
    directory: join(folder, 'pg'),
    settings: { max_connections: String(MOST) },
  })
  await asSuperuser(async (client) => {
    await client.query(`CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'`)
    await client.query('GRANT CREATE ON DATABASE postgres TO ordinary')
  })
  const ordinary = new URL(server.url)
  ordinary.username = 'ordinary'
  ordinary.password = 'ordinary'
  url = ordinary.href
})

afterAll(async () => {
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** By one of the connections that are reserved for superusers; it counts among all that there are. */
async function asSuperuser<Value>(work: (client: pg.Client) => Promise<Value>): Promise<Value> {
  const client = new pg.Client(server.url)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** Takes every connection that an ordinary role can get, until it is told to give them back. */
class Greedy {
  readonly #clients: pg.Client[] = []
  #giving = false

  /** How many it has. One whose session has ended may be free only a moment later. */
  get held(): number {
    return this.#clients.length
  }

  /** Until there is none left. */
  async take(): Promise<void> {
    for (;;) {
      const client = new pg.Client({ connectionString: url, application_name: 'greedy' })
      client.on('error', () => {})
      try {
        await client.connect()
      } catch (error) {
        expect(error).toMatchObject({ code: '53300' })
        return
      }
      if (this.#giving) return client.end()
      this.#clients.push(client)
    }
  }

  async giveBack(): Promise<void> {
    this.#giving = true
    await Promise.all(this.#clients.splice(0).map((client) => client.end()))
  }
}

function schemaOf({ task }: TestContext): string {
  return `few_${task.id.replaceAll(/\W/g, '_')}`
}

function engineOf(context: TestContext, options: EngineOptions, tasks: Task<unknown, pg.PoolClient>[] = []) {
  const schema = schemaOf(context)
  const beating = { heartbeat: '200ms', deadAfter: '600ms' } as const
  const engine = createEngine<pg.PoolClient>({ url, schema, ...beating, ...options, tasks })
  context.onTestFinished(() => engine.stop({ graceMs: 0 }))
  return engine
}

test('at the start it is named, with the remedy, and the start works once there are some', async (context) => {
  const engine = engineOf(context, { queues: { default: 1 } })
  await engine.migrate()
  await engine.stop()
  const greedy = new Greedy()
  await eventually(async () => {
    await greedy.take()
    return greedy.held === MOST - RESERVED
  })
  context.onTestFinished(() => greedy.giveBack())
  const late = engineOf(context, { queues: { default: 1 } })
  await expect(late.start()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(REMEDY),
    cause: { code: '53300' },
  })
  await greedy.giveBack()
  await late.start()
})

test('while jobs run, they go on once there are some: none is lost, paid for twice, or charged an attempt', async (context) => {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  const calls = new Map<string, number>()
  const task: Task<unknown, pg.PoolClient> = defineStagedTask({
    name: 'staged',
    input: unchecked<unknown>(),
    maxAttempts: 1,
    backoff: { initial: '50ms' },
    prepare: ({ tx }: { tx: pg.PoolClient }) => tx.query('SELECT 1').then(() => null),
    call: async ({ job }) => {
      calls.set(job.id, (calls.get(job.id) ?? 0) + 1)
      await released
      return 'paid for'
    },
    commit: async ({ tx }: { tx: pg.PoolClient }) => {
      await tx.query('SELECT 1')
    },
  })
  const options = {
    engine: { size: 3 },
    application: { size: 2, acquireTimeout: '1s' as const },
    queues: { default: JOBS },
  }
  const engine = engineOf(context, options, [task])
  await engine.migrate()
  const alarms: string[] = []
  for (const name of ['jobs:rescued', 'process:lost', 'job:lost', 'job:discarded'] as const)
    engine.telemetry.on(name, () => alarms.push(name))
  await engine.start()
  const jobs = await engine.enqueueMany(task, Array(JOBS).fill({ input: {} }))
  await eventually(() => calls.size === JOBS)

  const refused = engine.telemetry.next('statement:failed', ({ error }) => REMEDY.test(error.message))
  const greedy = new Greedy()
  context.onTestFinished(() => greedy.giveBack())
  await asSuperuser(async (client) => {
    // The engine's connections end one by one, and others are there before it is.
    const own = `SELECT pid FROM pg_stat_activity WHERE usename = 'ordinary' AND application_name <> 'greedy'`
    await eventually(async () => {
      await client.query(`SELECT pg_terminate_backend(pid) FROM (${own}) own`)
      await greedy.take()
      return greedy.held === MOST - RESERVED - 1
    })
    release()
    await refused
    // The application's pool too: jobs that were to commit found no connection.
    await expect(engine.transaction(async () => {})).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(REMEDY),
    })
  })
  await greedy.giveBack()
  for (const { id } of jobs) {
    const done = await eventually(async () => {
      const job = await engine.job(id)
      expect(job?.state).toBe('completed')
      return job!
    })
    expect(done).toMatchObject({ attempt: 1, crashCount: 0 })
  }
  expect([...calls.values()]).toEqual(Array(JOBS).fill(1))
  expect(alarms).toEqual([])
})

test('for the application alone, jobs wait with their attempts', async (context) => {
  const task: Task<unknown, pg.PoolClient> = defineStagedTask({
    name: 'staged',
    input: unchecked<unknown>(),
    maxAttempts: 1,
    backoff: { initial: '50ms' },
    prepare: ({ tx }: { tx: pg.PoolClient }) => tx.query('SELECT 1').then(() => null),
    call: async () => 'answer',
    commit: async ({ tx }: { tx: pg.PoolClient }) => {
      await tx.query('SELECT 1')
    },
  })
  const options = { url: server.url, application: { url, size: 2 }, queues: { default: JOBS } }
  const engine = engineOf(context, options, [task])
  await engine.migrate()
  await asSuperuser(async (client) => {
    await client.query(`GRANT ALL ON SCHEMA ${schemaOf(context)} TO ordinary`)
    await client.query(`GRANT ALL ON ALL TABLES IN SCHEMA ${schemaOf(context)} TO ordinary`)
  })
  const greedy = new Greedy()
  context.onTestFinished(() => greedy.giveBack())
  await engine.start()
  await greedy.take()
  const retried = engine.telemetry.next('job:retried', ({ claimNo }) => claimNo > 1)
  const jobs = await engine.enqueueMany(task, Array(JOBS).fill({ input: {} }))
  expect(await retried).toMatchObject({
    attempt: 1,
    countsAsAttempt: false,
    error: { code: 'CONNECTION_FAILED', message: expect.stringMatching(REMEDY) },
  })
  await greedy.giveBack()
  for (const { id } of jobs) {
    await eventually(async () =>
      expect(await engine.job(id)).toMatchObject({ state: 'completed', attempt: 1 }),
    )
  }
})
