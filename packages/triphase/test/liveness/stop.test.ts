import { setImmediate as turn } from 'node:timers/promises'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import {
  type Duration,
  defineTask,
  type Engine,
  type Hint,
  pgTransactor,
  unchecked,
} from '../../src/index.ts'
import { Producer } from '../../src/queue/producer.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()

interface Handled {
  /** Handlers that have begun, by job. */
  started: string[]
  /** Reasons with which signals fired, as codes. */
  aborted: string[]
  release: () => void
}

/** A task whose jobs wait until they are released; `stubborn` ones do not listen to their signal. */
function waiting(options: { stubborn?: boolean; timeout?: Duration } = {}) {
  const { promise, resolve } = Promise.withResolvers<void>()
  const handled: Handled = { started: [], aborted: [], release: resolve }
  const task = defineTask({
    name: 'waiting',
    input: unchecked<unknown>(),
    timeout: options.timeout ?? '1m',
    run: async ({ job, signal }) => {
      handled.started.push(job.id)
      const fired = new Promise<never>((_, reject) => {
        signal.addEventListener('abort', () => {
          handled.aborted.push(signal.reason.code)
          if (!options.stubborn) reject(signal.reason)
        })
      })
      await Promise.race([promise, fired])
      return 'finished'
    },
  })
  return { task, handled }
}

/** An engine that runs two of ten jobs. */
async function runningTwo(options: Parameters<typeof waiting>[0] = {}) {
  const { task, handled } = waiting(options)
  const engine = bench.engine({
    tasks: [task],
    queues: { default: 2 },
    heartbeat: '200ms',
    deadAfter: '600ms',
  })
  await engine.start()
  const jobs = await engine.enqueueMany(task, Array(10).fill({ input: {} }))
  await eventually(() => handled.started.length === 2)
  return { engine, task, handled, ids: jobs.map(({ id }) => id) }
}

/** How many jobs there are of each state and attempt, as `state attempt`. */
async function states(): Promise<Record<string, number>> {
  const rows = await bench.schema.database.query<{ state: string; attempt: number }>(
    `SELECT state, attempt FROM triphase.job UNION ALL SELECT state, attempt FROM triphase.job_history`,
  )
  const counts: Record<string, number> = {}
  for (const { state, attempt } of rows)
    counts[`${state} ${attempt}`] = (counts[`${state} ${attempt}`] ?? 0) + 1
  return counts
}

async function registered(): Promise<number> {
  return (await bench.schema.database.query(`SELECT FROM triphase.process`)).length
}

describe('a graceful stop', () => {
  test('claims nothing more, and lets running jobs finish', async () => {
    const { engine, handled } = await runningTwo()
    const stopping = engine.telemetry.next('process:stopping')
    const stopped = engine.stop({ graceMs: 20_000 })
    expect(await stopping).toMatchObject({ running: expect.any(Number), graceMs: 20_000 })
    handled.release()
    await stopped
    expect(handled.aborted).toEqual([])
    expect(handled.started).toHaveLength(2)
    expect(await states()).toEqual({ 'completed 1': 2, 'available 0': 8 })
    expect(await registered()).toBe(0)
  })

  test('says in its row that it is stopping, while running jobs finish', async () => {
    const { engine, handled } = await runningTwo()
    const stopped = engine.stop({ graceMs: 20_000 })
    const row = `SELECT FROM triphase.process WHERE stopping`
    await eventually(async () => (await bench.schema.database.query(row)).length === 1)
    handled.release()
    await stopped
  })

  test('fires signals when the grace period is over, and hands the jobs back without burning an attempt', async () => {
    const { engine, task, handled } = await runningTwo()
    const back: string[] = []
    engine.telemetry.on('job:handed-back', ({ jobId }) => back.push(jobId))
    await engine.stop({ graceMs: 50 })
    expect(handled.aborted).toEqual(['STOPPING', 'STOPPING'])
    expect(back.sort()).toEqual(handled.started.sort())
    expect(await states()).toEqual({ 'available 0': 10 })
    expect(await bench.schema.database.query(`SELECT FROM triphase.job_attempt`)).toEqual([])
    const next = bench.engine({ tasks: [task], queues: { default: 10 } })
    handled.release()
    await next.start()
    await eventually(async () => (await next.counts()).length === 0)
    expect(await states()).toEqual({ 'completed 1': 10 })
  })

  test('waits for all that runs when it is given for ever', async () => {
    const { engine, handled } = await runningTwo()
    const stopping = engine.telemetry.next('process:stopping')
    const stopped = engine.stop({ graceMs: Number.POSITIVE_INFINITY })
    await stopping
    const row = `SELECT FROM triphase.process WHERE stopping`
    await eventually(async () => (await bench.schema.database.query(row)).length === 1)
    expect(handled.aborted).toEqual([])
    handled.release()
    await stopped
    expect(handled.aborted).toEqual([])
    expect(await states()).toEqual({ 'completed 1': 2, 'available 0': 8 })
  })

  test('keeps what a job finishes with after its signal has fired, instead of handing it back', async () => {
    const { engine, handled } = await runningTwo({ stubborn: true })
    const stopped = engine.stop({ graceMs: 0 })
    await eventually(() => handled.aborted.length === 2)
    handled.release()
    await stopped
    expect(await states()).toEqual({ 'completed 1': 2, 'available 0': 8 })
  })

  test('does not wait for handlers that ignore their signal: they are reported, and their jobs handed back', async () => {
    const { engine, handled } = await runningTwo({ stubborn: true })
    const leaks: string[] = []
    engine.telemetry.on('job:leaked', ({ jobId }) => leaks.push(jobId))
    await engine.stop({ graceMs: 0 })
    expect(leaks.sort()).toEqual(handled.started.sort())
    expect(await states()).toEqual({ 'available 0': 10 })
    expect(await registered()).toBe(0)
    handled.release()
  })

  test('lets a running job use the engine while it finishes', async () => {
    const { task: other } = waiting()
    const begun = Promise.withResolvers<void>()
    const proceed = Promise.withResolvers<void>()
    const chained = defineTask({
      name: 'chained',
      input: unchecked<unknown>(),
      run: async () => {
        begun.resolve()
        await proceed.promise
        await engine.enqueue(other, {}, { queue: 'elsewhere' })
      },
    })
    const engine: Engine<never> = bench.engine({ tasks: [chained], queues: { default: 1 } }) as never
    await engine.start()
    await engine.enqueue(chained, {})
    await begun.promise
    const stopped = engine.stop({ graceMs: 20_000 })
    proceed.resolve()
    await stopped
    expect(await states()).toEqual({ 'completed 1': 1, 'available 0': 1 })
  })

  test('gives up the leadership', async () => {
    const engine = bench.engine()
    const leading = engine.telemetry.next('process:leading')
    await engine.start()
    await leading
    await engine.stop()
    expect(await bench.schema.database.query(`SELECT FROM triphase.leader`)).toEqual([])
  })
})

describe('stop and start', () => {
  test('stopping twice is stopping once', async () => {
    const { engine, handled } = await runningTwo()
    const events: string[] = []
    for (const name of ['process:stopping', 'process:stopped'] as const)
      engine.telemetry.on(name, () => events.push(name))
    const first = engine.stop({ graceMs: 20_000 })
    const second = engine.stop({ graceMs: 0 })
    expect(second).toBe(first)
    handled.release()
    await second
    expect(handled.aborted).toEqual([])
    expect(events.filter((name) => name.startsWith('process:'))).toEqual([
      'process:stopping',
      'process:stopped',
    ])
  })

  test('starting twice is starting once', async () => {
    const engine = bench.engine()
    await Promise.all([engine.start(), engine.start()])
    await engine.start()
    expect(await registered()).toBe(1)
  })

  test('an engine that was never started stops, and one that is starting stops too', async () => {
    await bench.engine().stop()
    const engine = bench.engine({ queues: { default: 1 } })
    const starting = engine.start()
    await engine.stop()
    await starting
    expect(await registered()).toBe(0)
  })

  test('a stopped engine sends no hints, which would open connections that nobody closes', async () => {
    const pool = new pg.Pool({ connectionString: bench.schema.url })
    const sent: Hint[] = []
    let stops = 0
    const engine = bench.engine({
      transactor: pgTransactor(pool),
      notifier: {
        name: 'counting',
        start: async () => {},
        publish: async (_database, hints) => void sent.push(...hints),
        stop: async () => void stops++,
      },
    })
    await engine.stop()
    const { task } = waiting()
    const { id } = await engine.transaction((tx) => engine.enqueue(task, {}, { tx }))
    await pool.end()
    // Hints go in the next turn of the event loop.
    for (let turns = 0; turns < 3; turns++) await turn()
    expect(sent).toEqual([])
    expect(stops).toBe(1)
    expect(await bench.schema.database.query(`SELECT id FROM triphase.job`)).toEqual([{ id }])
  })

  test('a stopped engine does not start again, whether it had run or not, and says so', async () => {
    const [never, once] = [bench.engine(), bench.engine()]
    await once.start()
    await Promise.all([never.stop(), once.stop()])
    await expect(never.start()).rejects.toMatchObject({ code: 'ENGINE_NOT_RUNNING' })
    await expect(once.start()).rejects.toMatchObject({ code: 'ENGINE_NOT_RUNNING' })
  })
})

test('a producer stops although too many outcomes wait to be written: the database may be away', async () => {
  const producer = new Producer({
    queue: 'default',
    concurrency: 1,
    claim: () => Promise.reject(new Error('nothing is to be claimed')),
    run: async () => {},
    handBack: () => {},
    ready: () => new Promise(() => {}),
    onClaimFailed: (error) => {
      throw error
    },
  })
  producer.start()
  await producer.stop()
})

test('a handler that ignores its signal keeps its slot until it settles', async () => {
  const { task, handled } = waiting({ stubborn: true, timeout: '100ms' })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 }, abortGrace: '100ms' })
  await engine.start()
  const leaked = engine.telemetry.next('job:leaked')
  const retried = engine.telemetry.next('job:retried')
  await engine.enqueueMany(task, [{ input: {}, maxAttempts: 2 }, { input: {} }])
  expect(await leaked).toMatchObject({ jobId: handled.started[0] })
  expect((await retried).error.code).toBe('TIMEOUT')
  expect(handled.aborted).toEqual(['TIMEOUT'])
  // Its outcome is written, and the second job waits all the same.
  expect(handled.started).toHaveLength(1)
  handled.release()
  await eventually(() => handled.started.length >= 2)
})
