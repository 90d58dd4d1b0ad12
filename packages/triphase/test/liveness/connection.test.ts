import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { createEngine, defineTask, type Task, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { errorResponse } from '../support/pg-wire.ts'
import { eventually } from '../support/processes.ts'
import { lasting, type Scene, sceneOf } from './scene.ts'

const JOBS = 100
const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const

interface CountedJobs {
  task: Task<{ ms: number }>
  runs: Map<string, number>
}

/** Jobs that take a while, and count how often each is run. */
function countedJobs(): CountedJobs {
  const runs = new Map<string, number>()
  const task = defineTask({
    name: 'counted',
    input: unchecked<{ ms: number }>(),
    run: async ({ job, input }) => {
      runs.set(job.id, (runs.get(job.id) ?? 0) + 1)
      await new Promise((resolve) => setTimeout(resolve, input.ms))
      return job.id
    },
  })
  return { task, runs }
}

async function expectEachDoneOnce(scene: Scene, ids: string[], runs: Map<string, number>): Promise<void> {
  await scene.allDone()
  const history = await scene.rows(
    `SELECT id::text, state, claim_no, crash_count FROM triphase.job_history ORDER BY job_history.id`,
  )
  expect(history).toEqual(ids.map((id) => ({ id, state: 'completed', claim_no: 1, crash_count: 0 })))
  expect([...runs.values()]).toEqual(Array(ids.length).fill(1))
}

/** Nobody listens there: a port that was just given back. */
async function closedPort(): Promise<string> {
  const proxy = await startFaultProxy({ host: '127.0.0.1', port: 1 })
  const url = proxy.url(testUrl())
  await proxy.close()
  return url
}

describe.concurrent('a database that is away at the start', () => {
  test('is a CONNECTION_FAILED at once, where nobody listens', async (context) => {
    const scene = await sceneOf(context)
    const engine = scene.engine({ url: await closedPort() })
    const error = { code: 'CONNECTION_FAILED', message: expect.stringContaining('ECONNREFUSED') }
    await expect(engine.migrate()).rejects.toMatchObject(error)
    await expect(engine.start()).rejects.toMatchObject(error)
  })

  test('is a CONNECTION_FAILED after acquireTimeout, where the network passes nothing', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    proxy.freeze(true)
    const engine = scene.engine({ url: proxy.url(testUrl()), engine: { size: 3, acquireTimeout: '300ms' } })
    await expect(engine.migrate()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    await expect(engine.start()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
  })

  test('is away for a while: the same engine starts when its caller tries again', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    proxy.refuse(true)
    const { task, runs } = countedJobs()
    const engine = scene.engine({ url: proxy.url(testUrl()), tasks: [task], queues: { default: 1 } })
    for (let tries = 0; tries < 3; tries++)
      await expect(engine.start()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    proxy.refuse(false)
    await engine.migrate()
    await engine.start()
    const { id } = await engine.enqueue(task, { ms: 0 })
    await expectEachDoneOnce(scene, [id], runs)
    expect(await scene.rows(`SELECT FROM triphase.process`)).toHaveLength(1)
  })
})

describe.concurrent('a database that goes away in the middle', () => {
  test('is waited for: every job is done exactly once, and what is enqueued meanwhile is refused', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const { task, runs } = countedJobs()
    const url = proxy.url(testUrl())
    const engine = scene.engine({ ...BEATING, url, tasks: [task], queues: { default: JOBS } })
    await engine.start()
    const jobs = await engine.enqueueMany(task, Array(JOBS).fill({ input: { ms: 500 } }))
    await eventually(() => runs.size === JOBS)
    proxy.refuse(true)
    proxy.cutAll()
    const failed = engine.telemetry.next('statement:failed', ({ statement }) => statement.startsWith('ack'))
    await expect(engine.enqueue(task, { ms: 0 })).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    expect(await failed).toMatchObject({ statement: 'ack (no connection)', retryInMs: expect.any(Number) })
    await lasting(1_000)
    proxy.refuse(false)
    await expectEachDoneOnce(
      scene,
      jobs.map(({ id }) => id),
      runs,
    )
    const { id } = await engine.enqueue(task, { ms: 0 })
    await eventually(async () => (await engine.job(id))?.state === 'completed')
  })

  test('ends all connections, over and over, while 100 jobs run: each is done exactly once', async (context) => {
    const scene = await sceneOf(context)
    const { task, runs } = countedJobs()
    const name = `ended ${scene.schema.schema}`
    const engine = scene.engine({ ...BEATING, name, tasks: [task], queues: { default: JOBS } })
    const events: string[] = []
    engine.telemetry.onAny((event) => events.push(event))
    await engine.start()
    // The last of them end 900 ms later than the first: acks are under way all the time.
    const inputs = Array.from({ length: JOBS }, (_, index) => ({ input: { ms: 300 + index * 9 } }))
    const jobs = await engine.enqueueMany(task, inputs)
    await eventually(() => runs.size === JOBS)
    const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1`
    let ended = 0
    for (let rounds = 0; rounds < 20; rounds++) {
      ended += (await scene.rows(end, [`${name}%`])).length
      await lasting(50)
    }
    await expectEachDoneOnce(
      scene,
      jobs.map(({ id }) => id),
      runs,
    )
    expect(ended).toBeGreaterThan(10)
    // Whether one was ended in the middle of a statement is chance.
    const troubles = ['statement:failed', 'heartbeat:failed', 'pool:error']
    await eventually(
      () => events.includes('notifier:changed') && troubles.some((name) => events.includes(name)),
    )
    await eventually(() => expect(engine.connections().engine.inUse).toBe(0))
  })

  test('says that it shuts down, or starts up: it is asked again', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const { task, runs } = countedJobs()
    const engine = scene.engine({ url: proxy.url(testUrl()), tasks: [task], queues: { default: 1 } })
    await engine.start()
    const faults = ['57P01', '57P03', '08006', '53300', '40P01'].map((sqlstate) =>
      proxy.onStatement(/\.finish_jobs\(/, 'error', { sqlstate }),
    )
    const { id } = await engine.enqueue(task, { ms: 0 })
    await expectEachDoneOnce(scene, [id], runs)
    expect(faults.map(({ hits }) => hits)).toEqual([1, 1, 1, 1, 1])
  })

  test('ends idle connections of both pools: it is reported, and nothing else happens', async (context) => {
    const scene = await sceneOf(context)
    const name = `idle ${scene.schema.schema}`
    const engine = scene.engine({ name })
    const pools = new Set<string>()
    engine.telemetry.on('pool:error', ({ pool }) => pools.add(pool))
    await engine.counts()
    await engine.transaction(async (tx) => tx.query('SELECT 1'))
    await scene.rows(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE $1`,
      [`${name}%`],
    )
    await eventually(() => expect([...pools].sort()).toEqual(['application', 'engine']))
    expect(await engine.counts()).toEqual([])
    await engine.transaction(async (tx) => tx.query('SELECT 1'))
  })
})

test('a connection that ends in the moment in which it is opened fails its statement, and not the process', async (context) => {
  const scene = await sceneOf(context)
  const [authenticated, ready] = [
    Buffer.from([82, 0, 0, 0, 8, 0, 0, 0, 0]),
    Buffer.from([90, 0, 0, 0, 5, 73]),
  ]
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () =>
      socket.end(Buffer.concat([authenticated, ready, errorResponse('57P01', 'going down')])),
    )
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const { port } = server.address() as AddressInfo
  const engine = scene.engine({ url: `postgres://127.0.0.1:${port}/db` })
  await expect(engine.counts()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
  await expect(engine.transaction(async () => {})).rejects.toThrow()
  server.close()
})

describe('a role without rights', () => {
  // A new one for each test: a pooler goes on with connections of a role that was dropped.
  async function withRole(scene: Scene, work: (url: string, role: string) => Promise<void>): Promise<void> {
    const role = `nobody_${randomBytes(4).toString('hex')}`
    await scene.rows(`CREATE ROLE ${role} LOGIN PASSWORD 'nobody'`)
    const url = new URL(testUrl())
    url.username = role
    url.password = 'nobody'
    try {
      await work(url.href, role)
    } finally {
      await scene.rows(`DROP OWNED BY ${role}`)
      await scene.rows(`DROP ROLE ${role}`)
    }
  }

  test('may not make the schema, nor use the one that is there, and is told what to do', async (context) => {
    const scene = await sceneOf(context)
    await withRole(scene, async (url, role) => {
      const [absent, present] = [scene.engine({ url, schema: `of_${role}` }), scene.engine({ url })]
      const remedy = /Grant the role CREATE on the database.*migrationSql\(\)/
      const error = { code: 'NO_PERMISSION', message: expect.stringMatching(remedy) }
      await expect(absent.migrate()).rejects.toMatchObject(error)
      await expect(present.migrate()).rejects.toMatchObject(error)
      const use = /Grant the role USAGE on the schema .* SELECT, INSERT, UPDATE and DELETE/
      const unused = { code: 'NO_PERMISSION', message: expect.stringMatching(use) }
      await expect(present.start()).rejects.toMatchObject(unused)
      await expect(present.enqueue(countedJobs().task, { ms: 0 })).rejects.toMatchObject(unused)
      await expect(absent.start()).rejects.toMatchObject({ code: 'MIGRATION_NEEDED' })
      await Promise.all([absent.stop(), present.stop()])
    })
  })

  test('is enough to work, once it may use the tables', async (context) => {
    const scene = await sceneOf(context)
    const { schema } = scene.schema
    await withRole(scene, async (url, role) => {
      for (const right of [
        `USAGE ON SCHEMA ${schema}`,
        `SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ${schema}`,
        `USAGE ON ALL SEQUENCES IN SCHEMA ${schema}`,
      ])
        await scene.rows(`GRANT ${right} TO ${role}`)
      const { task, runs } = countedJobs()
      const engine = scene.engine({ url, tasks: [task], queues: { default: 1 } })
      await engine.start()
      const { id } = await engine.enqueue(task, { ms: 0 })
      await expectEachDoneOnce(scene, [id], runs)
      await engine.stop()
    })
  })
})

test('a wrong password is named, but not said', async (context) => {
  const role = `wrong_${randomBytes(4).toString('hex')}`
  const scene = await sceneOf(context)
  await scene.rows(`CREATE ROLE ${role} LOGIN PASSWORD 'right'`)
  const url = new URL(testUrl())
  url.username = role
  url.password = 'wrong-and-secret'
  const plain = new pg.Client({ connectionString: url.href })
  const asks = await plain.connect().then(
    () => false,
    () => true,
  )
  await plain.end()
  const engine = createEngine({ url: url.href, schema: scene.schema.schema })
  const refused = await engine.start().catch((error: unknown) => error)
  await engine.stop()
  await scene.rows(`DROP ROLE ${role}`)
  context.skip(!asks, 'this server takes any password')
  expect(refused).toMatchObject({
    code: 'LOGIN_REFUSED',
    message: expect.stringMatching(/(password|SASL) authentication failed.*user, password and database name/),
  })
  expect(JSON.stringify(refused) + String(refused)).not.toContain('secret')
})
