// A server that is there and lets nobody in: the message says what to do, and jobs wait until it does.
import { randomBytes } from 'node:crypto'
import { describe, expect, type TestContext, test } from 'vitest'
import { defineStagedTask, defineTask, unchecked } from '../../src/index.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { eventually } from '../support/processes.ts'
import { type Scene, sceneOf } from './scene.ts'

const JOBS = 20

/** A role with all rights, which the test may lock out. */
async function roleOf(context: TestContext, scene: Scene): Promise<{ role: string; url: string }> {
  const role = `refused_${randomBytes(4).toString('hex')}`
  await scene.rows(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'right'`)
  context.onTestFinished(async () => {
    await scene.rows(`DROP ROLE ${role}`)
  })
  const url = new URL(testDatabaseUrl())
  url.username = role
  url.password = 'right'
  return { role, url: url.href }
}

const LOCKED_OUT: [string, string, string, object][] = [
  [
    'a password that was changed',
    `PASSWORD 'left'`,
    `PASSWORD 'right'`,
    { code: 'LOGIN_REFUSED', message: expect.stringMatching(/Check user, password and database name/) },
  ],
  [
    'a role that may not log in any more',
    'NOLOGIN',
    'LOGIN',
    { code: 'LOGIN_REFUSED', message: expect.stringMatching(/not permitted to log in/) },
  ],
]

describe.concurrent('a role that is locked out while jobs run', () => {
  test.for(LOCKED_OUT)(
    '%s: every outcome is kept, and written once it is let in',
    async ([, lock, unlock, error], context) => {
      const scene = await sceneOf(context)
      const { role, url } = await roleOf(context, scene)
      const { promise: released, resolve: release } = Promise.withResolvers<void>()
      let runs = 0
      const run = () => {
        runs++
        return released
      }
      const task = defineTask({ name: 'held', input: unchecked<null>(), run })
      const beating = { heartbeat: '200ms', deadAfter: '600ms' } as const
      const engine = scene.engine({ ...beating, url, tasks: [task], queues: { default: JOBS } })
      const alarms = scene.alarmsOf([engine])
      await engine.start()
      await engine.enqueueMany(task, Array(JOBS).fill({ input: null }))
      await eventually(() => runs === JOBS)
      await scene.rows(`ALTER ROLE ${role} ${lock}`)
      await scene.rows(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1`, [role])
      const failed = engine.telemetry.next(
        'statement:failed',
        (event) => event.statement === 'ack (no connection)' && event.error.code === 'LOGIN_REFUSED',
      )
      release()
      expect(await failed).toMatchObject({ error, retryInMs: expect.any(Number) })
      await expect(engine.enqueue(task, null)).rejects.toMatchObject(error)
      await scene.rows(`ALTER ROLE ${role} ${unlock}`)
      await scene.allDone()
      const history = await scene.rows(`SELECT claim_no, crash_count, state FROM triphase.job_history`)
      expect(history).toEqual(Array(JOBS).fill({ claim_no: 1, crash_count: 0, state: 'completed' }))
      expect([runs, alarms]).toEqual([JOBS, []])
      await engine.stop()
    },
  )
})

test('a server without a connection left is named, with the remedy, and worked with once it has some', async (context) => {
  const scene = await sceneOf(context)
  const { role, url } = await roleOf(context, scene)
  // The limit of a role is not that of superusers, and says what max_connections says.
  const { schema } = scene.schema
  await scene.rows(`ALTER ROLE ${role} NOSUPERUSER CONNECTION LIMIT 1`)
  for (const right of [
    `ALL ON SCHEMA ${schema}`,
    `ALL ON ALL TABLES IN SCHEMA ${schema}`,
    `ALL ON ALL SEQUENCES IN SCHEMA ${schema}`,
  ])
    await scene.rows(`GRANT ${right} TO ${role}`)
  context.onTestFinished(async () => {
    await scene.rows(`DROP OWNED BY ${role}`)
  })
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => 'done' })
  const engine = scene.engine({ url, tasks: [task], queues: { default: 1 } })
  // The heartbeat's connection is the second.
  await expect(engine.start()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(/too many connections for role.*make the pools smaller.*max_connections/),
  })
  await scene.rows(`ALTER ROLE ${role} CONNECTION LIMIT 20`)
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  await eventually(async () => (await engine.job(id))?.state === 'completed')
  await engine.stop()
})

test('a server that accepts and never answers is named, with the remedy', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  proxy.freeze(true)
  const url = proxy.url(testDatabaseUrl())
  const engine = scene.engine({ url, engine: { size: 3, acquireTimeout: '200ms' } })
  await expect(engine.start()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(/does not answer within acquireTimeout.*a hung server/),
  })
})

test('a pool whose connections are all in use is named, with the remedy', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  const url = proxy.url(testDatabaseUrl())
  const engine = scene.engine({ url, engine: { size: 2, acquireTimeout: '300ms' } })
  await engine.counts()
  const held = proxy.onStatement(/.*/, 'hold-before')
  const holding = engine.counts()
  await held.hit
  await expect(engine.counts()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(/Every connection of this pool was in use.*make the pool larger/),
  })
  held.release()
  await holding
})

test('a server that refuses TLS is named, with the remedy', async (context) => {
  const scene = await sceneOf(context)
  const url = new URL(testDatabaseUrl())
  url.searchParams.set('sslmode', 'verify-full')
  await expect(scene.engine({ url: url.href }).start()).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(/does not support SSL connections.*sslmode and sslrootcert in the URL/),
  })
})

test('a URL without the password that the server asks for is a refused login', async (context) => {
  const scene = await sceneOf(context)
  const url = new URL(testDatabaseUrl())
  url.password = ''
  await expect(scene.engine({ url: url.href }).start()).rejects.toMatchObject({
    code: 'LOGIN_REFUSED',
    message: expect.stringMatching(/password must be a string. Check user, password and database name/),
  })
})

const NOT_LET_IN: [string, (url: URL) => void, string][] = [
  [
    'that wants TLS of a server that has none',
    (url) => url.searchParams.set('sslmode', 'verify-full'),
    'CONNECTION_FAILED',
  ],
  ['without a password', (url) => Object.assign(url, { password: '' }), 'LOGIN_REFUSED'],
]

test.for(NOT_LET_IN)(
  "a URL of the application's pool %s costs a job no attempt",
  async ([, change, code], context) => {
    const scene = await sceneOf(context)
    const url = new URL(testDatabaseUrl())
    change(url)
    const task = defineStagedTask({
      name: 'staged',
      input: unchecked<null>(),
      maxAttempts: 1,
      prepare: async () => {},
      call: async () => 'answer',
      commit: async () => {},
    })
    const engine = scene.engine({ application: { url: url.href }, tasks: [task], queues: { default: 1 } })
    const outcome = Promise.race([
      engine.telemetry.next('job:retried'),
      engine.telemetry.next('job:discarded'),
    ])
    await engine.start()
    await engine.enqueue(task, null)
    expect(await outcome).toMatchObject({ countsAsAttempt: false, error: { code } })
  },
)
