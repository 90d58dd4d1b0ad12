import pg from 'pg'
import { describe, expect, test } from 'vitest'
import {
  defineTask,
  pgTransactor,
  pollingNotifier,
  postgresNotifier,
  type TelemetryEvents,
  unchecked,
} from '../../src/index.ts'
import { lasting, type PgEngine } from '../liveness/scene.ts'
import { useListeners, useSessions } from '../notifiers/contract.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { NO_PGBOUNCER } from '../support/pgbouncer.ts'
import { eventually } from '../support/processes.ts'
import { pooledScene } from './pooled-scene.ts'

type Changed = TelemetryEvents['notifier:changed']

const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => performance.now() })

const sessions = useSessions()
const listener = useListeners(postgresNotifier)

/** What an engine says of what it talks to. */
function hears({ telemetry }: PgEngine) {
  const heard = { changes: [] as Changed[], warnings: [] as string[], servers: [] as string[] }
  telemetry.on('notifier:changed', (change) => heard.changes.push(change))
  telemetry.on('config:warning', ({ message }) => heard.warnings.push(message))
  telemetry.on('server:found', ({ pooler }) => heard.servers.push(pooler))
  return heard
}

describe.skipIf(NO_PGBOUNCER)('an engine behind PgBouncer', () => {
  test('says once that notifications do not come back, and what to do, and polls', async (context) => {
    const { scene, pgbouncer, urls } = await pooledScene(context)
    const { url } = urls.engine
    const beating = { heartbeat: '30s', deadAfter: '90s' } as const
    const engine = scene.engine({ ...urls, ...beating, url, tasks: [task], queues: { default: 1 } })
    const heard = hears(engine)
    await engine.start()
    await eventually(() => expect(heard.changes).toHaveLength(1))
    expect(heard.changes[0]).toMatchObject({
      connected: false,
      error: { code: 'NOTIFICATIONS_LOST', message: expect.stringMatching(/Set directUrl to a URL around/) },
    })
    const { id } = await scene.engine().enqueue(task, null)
    await eventually(async () => (await engine.job(id))?.state === 'completed')
    await pgbouncer.restart()
    const next = await scene.engine().enqueue(task, null)
    await eventually(async () => (await engine.job(next.id))?.state === 'completed')
    await lasting(3_000)
    expect(heard.changes).toHaveLength(1)
  })

  test('leaves no LISTEN behind on a connection that others get', async (context) => {
    const { scene, pgbouncer, urls } = await pooledScene(context)
    const { url } = urls.engine
    const engine = scene.engine({ ...urls, url, tasks: [task], queues: { default: 1 } })
    const lost = engine.telemetry.next('notifier:changed')
    await engine.start()
    expect(await lost).toMatchObject({ error: { code: 'NOTIFICATIONS_LOST' } })
    const notifying = scene.engine()
    for (let sent = 0; sent < 5; sent++) {
      const { id } = await notifying.enqueue(task, null)
      await eventually(async () => (await engine.job(id))?.state === 'completed')
    }
    await engine.stop()
    expect(pgbouncer.log).not.toMatch(/packet 'A' from server/)
  })

  test('takes no notification for granted that comes while a heartbeat has the listening connection', async (context) => {
    const { scene, pgbouncer } = await pooledScene(context, { settings: { default_pool_size: 1 } })
    const proxy = await scene.proxy()
    const session = sessions(scene.schema, pgbouncer.url(testDatabaseUrl()))
    const database = sessions(scene.schema, proxy.url(testDatabaseUrl()))
    const probe = proxy.onStatement(/pg_notify/, 'hold-before')
    const { start, telemetry } = listener(scene.schema, { session, database })
    const said: unknown[] = []
    telemetry.on('notifier:changed', ({ connected, error }) => said.push(connected, error?.code))
    const starting = start()
    await probe.hit
    const beat = session.query('SELECT pg_sleep(1)')
    const asleep = `SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1)' AND state = 'active'`
    await eventually(async () => (await scene.rows(asleep)).length === 1)
    probe.release()
    await Promise.all([starting, beat])
    await eventually(() => expect(said).toEqual([false, 'NOTIFICATIONS_LOST']))
  })

  test('hears notifications with a directUrl around it', async (context) => {
    const { scene, urls } = await pooledScene(context)
    const engine = scene.engine({
      ...urls,
      directUrl: testDatabaseUrl(),
      tasks: [task],
      queues: { default: 1 },
    })
    const heard = hears(engine)
    await engine.start()
    await eventually(() =>
      expect(heard.changes).toEqual([{ notifier: 'postgres', connected: true, error: null }]),
    )
    const started = engine.telemetry.next('job:started')
    await scene.engine().enqueue(task, null)
    expect((await started).queuedMs).toBeLessThan(2_000)
  })

  test('polls where the direct connection is refused, and listens again when it is there', async (context) => {
    const { scene, urls } = await pooledScene(context)
    const proxy = await scene.proxy()
    proxy.refuse(true)
    const beating = { heartbeat: '30s', deadAfter: '90s' } as const
    const directUrl = proxy.url(testDatabaseUrl())
    const engine = scene.engine({ ...urls, ...beating, directUrl, tasks: [task], queues: { default: 1 } })
    const heard = hears(engine)
    await engine.start()
    const { id } = await scene.engine().enqueue(task, null)
    await eventually(async () => (await engine.job(id))?.state === 'completed')
    expect(heard.changes.map(({ connected }) => connected)).toEqual([false])
    proxy.refuse(false)
    await eventually(() => expect(heard.changes.map(({ connected }) => connected)).toEqual([false, true]))
  })

  test('tells which pooling it sees, and warns where both pools are one', async (context) => {
    const aliases = { engine_side: 'dbname=postgres' }
    const { scene, pgbouncer, urls } = await pooledScene(context, { aliases })
    const [shared, apart, aliased] = [
      scene.engine({ url: urls.engine.url }),
      scene.engine(urls),
      scene.engine({
        url: urls.engine.url,
        engine: { url: pgbouncer.url(testDatabaseUrl(), 'engine_side') },
      }),
    ]
    const heard = [shared, apart, aliased].map(hears)
    await Promise.all([shared, apart, aliased].map((engine) => engine.start()))
    await eventually(() =>
      expect(heard.map(({ servers }) => servers)).toEqual(Array(3).fill(['transaction'])),
    )
    await eventually(() => expect(heard[0]!.warnings).toHaveLength(1))
    expect(heard[0]!.warnings[0]).toMatch(/one pool of the pooler.*role or a database alias of its own/)
    expect(heard.slice(1).map(({ warnings }) => warnings)).toEqual([[], []])
  })

  test('warns of a pool that an application shares with it by a pool of its own', async (context) => {
    const { scene, urls } = await pooledScene(context)
    const pools = [urls.engine.url, urls.application.url].map(
      (connectionString) => new pg.Pool({ connectionString }),
    )
    context.onTestFinished(async () => {
      await Promise.all(pools.map((pool) => pool.end()))
    })
    const engines = pools.map((pool) =>
      scene.engine({ url: urls.engine.url, transactor: pgTransactor(pool) }),
    )
    const heard = engines.map(hears)
    for (const engine of engines) await engine.start()
    await eventually(() => expect(heard[0]!.warnings).toHaveLength(1))
    await eventually(() => expect(pools[1]!.totalCount).toBe(1))
    expect(heard[1]!.warnings).toEqual([])
  })

  test('without a pooler, says so and warns of nothing', async (context) => {
    const { scene } = await pooledScene(context)
    const engine = scene.engine()
    const heard = hears(engine)
    await engine.start()
    await eventually(() => expect(heard.servers).toEqual(['none']))
    expect(heard.warnings).toEqual([])
  })

  test('that only polls sends fewer than 30 statements a minute when there is nothing to do', async (context) => {
    const { scene, pgbouncer } = await pooledScene(context)
    const proxy = await startFaultProxy({ ...serverAddress(pgbouncer.url(testDatabaseUrl())), log: true })
    context.onTestFinished(() => proxy.close())
    const url = proxy.url(testDatabaseUrl())
    // A twentieth of the defaults' times: what is sent in 3 s here is sent in a minute there.
    const notifier = pollingNotifier({ minMs: 2.5, maxMs: 250 })
    const beating = { heartbeat: '200ms', deadAfter: '600ms' } as const
    const engine = scene.engine({
      url,
      ...beating,
      notifier,
      tasks: [task],
      queues: { default: 1, other: 2 },
    })
    await engine.start()
    const sent = () => proxy.statements.length
    await lasting(6_000)
    const before = sent()
    await lasting(3_000)
    expect(sent() - before).toBeLessThan(30)
  })
})
