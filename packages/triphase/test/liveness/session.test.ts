// One connection for heartbeats and notifications, where both go to the same URL; two where they do not.
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { defineStagedTask, defineTask, type Task, unchecked } from '../../src/index.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { lasting, type PgEngine, type Scene, sceneOf } from './scene.ts'

const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const
/** Within a test there is no beat but the first, and those that something else asks for. */
const RARE = { heartbeat: '30s', deadAfter: '90s' } as const

const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => null })
const staged = defineStagedTask({
  name: 'staged',
  input: unchecked<null>(),
  prepare: async ({ tx }) => (await tx.query('SELECT 1')).rowCount,
  call: () => lasting(50),
  commit: async ({ tx }) => void (await tx.query('SELECT 1')),
})

/** A task whose jobs run until they are released. */
function held(): { task: Task<null>; release: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  const run = async () => promise
  return { task: defineTask({ name: 'held', input: unchecked<null>(), run }), release: resolve }
}

const named = (scene: Scene): string => `one ${scene.schema.schema} ${randomBytes(2).toString('hex')}`

/** The names of a process's connections, those of its engine without its own. */
async function connectionsOf(scene: Scene, name: string): Promise<string[]> {
  const rows = await scene.rows<{ name: string }>(
    `SELECT substr(application_name, length($1) + 1) AS name FROM pg_stat_activity
     WHERE application_name LIKE $1 || '%' ORDER BY 1`,
    [name],
  )
  return rows.map((row) => row.name)
}

/** What is said of notifications, and of beats and claims that did not go well. */
function hears(scene: Scene, engines: readonly PgEngine[]) {
  const heard = { connected: [] as boolean[], failures: 0, alarms: scene.alarmsOf(engines) }
  for (const { telemetry } of engines) {
    telemetry.on('notifier:changed', ({ connected }) => heard.connected.push(connected))
    telemetry.on('heartbeat:failed', () => heard.failures++)
    telemetry.on('statement:failed', () => heard.failures++)
  }
  return heard
}

/** Ends the connection on which the engine of this name beats and listens. */
function endBeating(scene: Scene, name: string): Promise<unknown[]> {
  return scene.rows(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE application_name = $1 AND query ~ '^LISTEN|SET beat = beat'`,
    [`${name}-engine`],
  )
}

async function beatOf(scene: Scene): Promise<number> {
  const [row] = await scene.rows<{ beat: string }>(`SELECT beat FROM triphase.process`)
  return Number(row?.beat)
}

/** A job that another process brings is run: a hint tells of it, where beats are rare. */
async function runsAnother(scene: Scene, engine: PgEngine): Promise<void> {
  const { id } = await scene.engine().enqueue(task, null)
  await eventually(async () => (await engine.job(id))?.state === 'completed')
}

describe.concurrent('the connections of a process', () => {
  test.for([
    ['no directUrl', {}, ['-engine', '-engine']],
    ["the engine's URL as directUrl", { directUrl: testDatabaseUrl() }, ['-engine', '-engine']],
    [
      'another directUrl',
      { directUrl: `${testDatabaseUrl()}?keepalives=1` },
      ['-engine', '-engine', '-listen'],
    ],
  ] as const)('with %s', async ([, urls, connections], context) => {
    const scene = await sceneOf(context)
    const name = named(scene)
    const url = testDatabaseUrl()
    const options = { ...RARE, ...urls, url, name, engine: { size: 2 }, application: { size: 2 } }
    const engine = scene.engine({ ...options, tasks: [task, staged], queues: { default: 50 } })
    const heard = hears(scene, [engine])
    await engine.start()
    await eventually(() => expect(heard.connected).toEqual([true]))
    await runsAnother(scene, engine)
    expect(await connectionsOf(scene, name)).toEqual(connections)
    await engine.enqueueMany(staged, Array(50).fill({ input: null }))
    await scene.allDone()
    expect(await connectionsOf(scene, name)).toEqual(['', '', ...connections])
    expect(heard).toEqual({ connected: [true], failures: 0, alarms: [] })
  })
})

describe.concurrent('the connection of heartbeats and notifications is ended', () => {
  test('under way, over and over: beats go on, nobody is taken for dead, and notifications come again', async (context) => {
    const scene = await sceneOf(context)
    const { task: waits, release } = held()
    const name = named(scene)
    const options = { ...BEATING, url: testDatabaseUrl(), tasks: [task, waits], queues: { default: 5 } }
    const [engine, peer] = [scene.engine({ ...options, name }), scene.engine({ ...options, queues: {} })]
    const heard = hears(scene, [engine])
    const peers = hears(scene, [peer])
    await Promise.all([engine.start(), peer.start()])
    await engine.enqueueMany(waits, Array(3).fill({ input: null }))
    await scene.executing(3)
    for (let round = 0; round < 5; round++) {
      const lost = engine.telemetry.next('notifier:changed', ({ connected }) => !connected)
      const back = engine.telemetry.next('notifier:changed', ({ connected }) => connected)
      expect((await endBeating(scene, name)).length).toBe(1)
      await lost
      await back
      await scene.beats(3)
    }
    expect(heard.connected).toEqual([true, ...Array(5).fill([false, true]).flat()])
    await runsAnother(scene, engine)
    release()
    await scene.allDone()
    expect([...heard.alarms, ...peers.alarms]).toEqual([])
    const claims = await scene.rows(`SELECT DISTINCT claim_no, crash_count FROM triphase.job_history`)
    expect(claims).toEqual([{ claim_no: 1, crash_count: 0 }])
  })

  test('between rare beats: it is noticed at once, a beat follows, and hints are heard on the next one', async (context) => {
    const scene = await sceneOf(context)
    const name = named(scene)
    const options = { ...RARE, name, url: testDatabaseUrl(), engine: { size: 2 } }
    const engine = scene.engine({ ...options, tasks: [task], queues: { default: 1 } })
    const heard = hears(scene, [engine])
    await engine.start()
    await eventually(() => expect(heard.connected).toEqual([true]))
    await eventually(async () => (await beatOf(scene)) > 0)
    const before = await beatOf(scene)
    await eventually(async () => (await endBeating(scene, name)).length === 1)
    await eventually(() => expect(heard.connected).toEqual([true, false, true]))
    await eventually(async () => (await beatOf(scene)) > before)
    await runsAnother(scene, engine)
    expect(await connectionsOf(scene, name)).toEqual(['-engine', '-engine'])
  })

  test('as a beat is not answered: the next connection listens, too', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await startFaultProxy({ ...serverAddress(testDatabaseUrl()), log: true })
    context.onTestFinished(() => proxy.close())
    const url = proxy.url(testDatabaseUrl())
    const engine = scene.engine({ ...BEATING, url, tasks: [task], queues: { default: 1 } })
    const heard = hears(scene, [engine])
    await engine.start()
    await eventually(() => expect(heard.connected).toEqual([true]))
    const dropped = proxy.onStatement(/SET beat = beat \+ 1/, 'hold-before')
    await dropped.hit
    await eventually(() => expect(heard.connected).toEqual([true, false, true]))
    expect(proxy.statements.filter(({ sql }) => /^LISTEN/.test(sql))).toHaveLength(2)
    expect(heard.alarms).toEqual([])
    dropped.release()
    await scene.beats(3)
    await runsAnother(scene, engine)
  })

  test('by a network that passes nothing for long: beats and notifications are back with it', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
    context.onTestFinished(() => proxy.close())
    const url = proxy.url(testDatabaseUrl())
    const engine = scene.engine({ ...BEATING, url, tasks: [task], queues: { default: 1 } })
    const heard = hears(scene, [engine])
    await engine.start()
    await eventually(() => expect(heard.connected).toEqual([true]))
    proxy.freeze(true)
    await eventually(() => expect(heard.connected).toEqual([true, false]))
    await lasting(3_000)
    proxy.freeze(false)
    await eventually(() => expect(heard.connected).toEqual([true, false, true]))
    await scene.beats(3)
    await runsAnother(scene, engine)
    expect(heard.alarms).toEqual([])
  })
})

describe.concurrent('a directUrl of its own that leads nowhere', () => {
  const AWAY = {
    'is refused': (proxy: Awaited<ReturnType<Scene['proxy']>>) => {
      proxy.refuse(true)
      proxy.cutAll()
    },
    'passes nothing': (proxy: Awaited<ReturnType<Scene['proxy']>>) => proxy.freeze(true),
  }
  test.for(Object.entries(AWAY))(
    'as it %s: heartbeats and claims go on as if it were there',
    async ([, away], context) => {
      const scene = await sceneOf(context)
      const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
      context.onTestFinished(() => proxy.close())
      const directUrl = proxy.url(testDatabaseUrl())
      const options = { ...BEATING, url: testDatabaseUrl(), tasks: [task], queues: { default: 1 } }
      const [engine, peer] = [
        scene.engine({ ...options, directUrl }),
        scene.engine({ ...options, queues: {} }),
      ]
      const heard = hears(scene, [engine, peer])
      await Promise.all([engine.start(), peer.start()])
      away(proxy)
      await scene.beats(10)
      await runsAnother(scene, engine)
      expect(heard).toMatchObject({ failures: 0, alarms: [] })
    },
  )
})
