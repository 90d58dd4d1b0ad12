// What the defaults promise (a beat every 4 s, dead after 12 s), at their real length. The tests wait most of the
// time, so they run at the same time, each on a schema of its own: about 40 s in all.
import type pg from 'pg'
import { afterAll, describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { jobIn } from '../support/jobs.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { lasting, type PgEngine, type Scene, sceneOf } from './scene.ts'

const RESCUE_LIMIT_MS = 20_000
const OUTAGE_MS = 15_000
const STOPPED_MS = 30_000
const EXHAUSTED_MS = 30_000
const JOBS = 20

afterAll(killWorkers)

const hold = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => 'done by the survivor' })
const holdMany = Array(JOBS).fill({ input: {} })

/** Twenty jobs in a process that is killed: how long until all of them have run elsewhere, in milliseconds. */
async function timeToRescue(
  scene: Scene,
  beforeKill: (processId: string) => Promise<unknown>,
): Promise<number> {
  const victim = await scene.process({ queues: { default: JOBS } })
  const engine = scene.engine({ tasks: [hold], queues: { default: JOBS } })
  await engine.enqueueMany(hold, holdMany)
  await eventually(() => victim.events('job:started').length === JOBS)
  await engine.start()
  await beforeKill(victim.processId)
  let done = 0
  const all = new Promise<void>((resolve) => {
    engine.telemetry.on('job:completed', () => (++done === JOBS ? resolve() : undefined))
  })
  const killed = performance.now()
  victim.kill('SIGKILL')
  await all
  return performance.now() - killed
}

// The longest first, as no more than five run at a time.
describe.concurrent('at default settings', { timeout: 90_000 }, () => {
  test('while jobs hold every connection of the application for 30 s, claims, heartbeats, acks and cancels go on', async (context) => {
    const scene = await sceneOf(context)
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const held = async (tx: pg.PoolClient) => {
      await tx.query('SELECT 1')
      await released
    }
    const input = unchecked<null>()
    const greedy = defineTask({ name: 'greedy', input, run: () => engine.transaction(held) })
    const quick = defineTask({ name: 'quick', input, run: () => 'done' })
    const patient = defineTask({
      name: 'patient',
      input,
      run: ({ signal }) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    const engine: PgEngine = scene.engine({
      guard: { mode: 'off' }, // It would refuse what the greedy ones do.
      engine: { size: 6 },
      application: { acquireTimeout: '60s' }, // Longer than they are held: nobody gives up waiting.
      tasks: [greedy, quick, patient],
      queues: { greedy: JOBS, quick: 2, patient: 1 },
    })
    const peer = scene.engine({ tasks: [quick], queues: { quick: 1 } })
    const alarms = scene.alarmsOf([engine, peer])
    await Promise.all([engine.start(), peer.start()])
    await engine.enqueueMany(greedy, Array(JOBS).fill({ input: null, queue: 'greedy' }))
    const exhausted = { inUse: 10, waiting: JOBS - 10 }
    await eventually(() => expect(engine.connections().application).toMatchObject(exhausted))
    const until = performance.now() + EXHAUSTED_MS
    while (performance.now() < until) {
      const { id } = await engine.enqueue(quick, null, { queue: 'quick' })
      const running = await engine.enqueue(patient, null, { queue: 'patient' })
      await eventually(async () => (await engine.job(running.id))?.state === 'executing')
      expect(await engine.cancel(running.id)).toBe('requested')
      await jobIn(engine, running.id, 'cancelled')
      await jobIn(engine, id, 'completed')
      expect(engine.connections().application).toMatchObject(exhausted)
      await lasting(500)
    }
    await scene.beats(1)
    release()
    await scene.allDone()
    const history = await scene.rows(
      `SELECT DISTINCT claim_no, crash_count FROM triphase.job_history WHERE state <> 'cancelled'`,
    )
    expect(history).toEqual([{ claim_no: 1, crash_count: 0 }])
    expect(alarms).toEqual([])
  })

  test('a process that is told to stop while the network is away ends by itself, and the others find its jobs', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const [url, options] = [proxy.url(testUrl()), { queues: { default: JOBS }, grace: '1s' } as const]
    const cutOff = await scene.process(options, { mode: 'runner', url })
    const engine = scene.engine({ tasks: [hold], queues: { default: JOBS } })
    await engine.enqueueMany(hold, holdMany)
    await eventually(() => cutOff.events('job:started').length === JOBS)
    proxy.freeze(true)
    cutOff.kill('SIGTERM')
    await engine.start()
    await scene.allDone(30_000)
    expect(await cutOff.exited).toEqual({ code: 0, signal: null })
    expect(cutOff.events('aborted').map(({ code }) => code)).toEqual(Array(JOBS).fill('STOPPING'))
  })

  test('a process stopped for 30 s is rescued, hears of it when it wakes, and works on', async (context) => {
    const scene = await sceneOf(context)
    const sleeper = await scene.process({ queues: { default: JOBS, own: 1 } })
    const engine = scene.engine({ tasks: [hold], queues: { default: JOBS } })
    await engine.enqueueMany(hold, holdMany)
    await eventually(() => sleeper.events('job:started').length === JOBS)
    await engine.start()
    const rescued = engine.telemetry.next('jobs:rescued')
    const stopped = performance.now()
    sleeper.kill('SIGSTOP')
    await rescued
    expect(performance.now() - stopped).toBeLessThan(RESCUE_LIMIT_MS)
    await lasting(STOPPED_MS - (performance.now() - stopped))
    sleeper.kill('SIGCONT')
    await sleeper.event('process:lost')
    const lost = Array(JOBS).fill('CLAIM_LOST')
    await eventually(() => expect(sleeper.events('aborted').map(({ code }) => code)).toEqual(lost))
    await engine.enqueue({ ...hold, name: 'nap' }, { ms: 0 }, { queue: 'own' })
    await sleeper.event('job:completed')
    const results = await scene.rows(`SELECT result::text FROM triphase.job_history WHERE task = 'hold'`)
    expect(results).toEqual(Array(JOBS).fill({ result: '"done by the survivor"' }))
  })

  test('nobody rescues the living after the network was away for longer than deadAfter', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const release = Promise.withResolvers<void>()
    let running = 0
    const run = () => {
      running++
      return release.promise
    }
    const held = defineTask({ name: 'hold', input: unchecked<unknown>(), run })
    const options = { url: proxy.url(testUrl()), tasks: [held], queues: { default: JOBS / 2 } }
    const engines = [scene.engine(options), scene.engine(options)]
    const alarms = scene.alarmsOf(engines)
    await Promise.all(engines.map((engine) => engine.start()))
    await scene.engine().enqueueMany(held, holdMany)
    await eventually(() => running === JOBS)
    proxy.freeze(true)
    await lasting(OUTAGE_MS)
    proxy.freeze(false)
    await scene.beats(4)
    release.resolve()
    await scene.allDone()
    const history = await scene.rows(`SELECT claim_no, crash_count, state FROM triphase.job_history`)
    expect(history).toEqual(Array(JOBS).fill({ claim_no: 1, crash_count: 0, state: 'completed' }))
    expect(alarms).toEqual([])
  })

  test('the jobs of a killed process run again within 20 s where nobody can look at the process', async (context) => {
    const scene = await sceneOf(context)
    const elsewhere = `UPDATE triphase.process SET machine = NULL WHERE id = $1`
    const ms = await timeToRescue(scene, (processId) => scene.rows(elsewhere, [processId]))
    // The last beat that the survivor saw may have been up to a beat before the kill.
    expect(ms).toBeGreaterThan(6_000)
    expect(ms).toBeLessThan(RESCUE_LIMIT_MS)
  })

  test('the jobs of a killed process run again within 20 s, and within two beats on its own machine', async (context) => {
    const ms = await timeToRescue(await sceneOf(context), async () => {})
    expect(ms).toBeLessThan(8_000)
  })

  test('a beat that is lost on the way is given up and sent again before its process is taken for dead', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const beating = { heartbeat: '1s', deadAfter: '3s' } as const
    const cutOff = scene.engine({ ...beating, url: proxy.url(testUrl()), name: 'cut off' })
    const peer = scene.engine(beating)
    const alarms = scene.alarmsOf([cutOff, peer])
    await Promise.all([cutOff.start(), peer.start()])
    const failed = cutOff.telemetry.next('heartbeat:failed')
    await proxy.onStatement(/UPDATE \S+\.process SET beat/, 'hold-before').hit
    expect((await failed).error.code).toBe('STATEMENT_TIMEOUT')
    await scene.beats(5)
    expect(alarms).toEqual([])
  })
})
