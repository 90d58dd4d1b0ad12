import { afterEach, describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { run } from '../../src/runner.ts'
import { testDatabaseUrl, testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { spawnEngine, startEngine, type WorkerSettings } from './worker-processes.ts'

const bench = useEngines()
afterEach(killWorkers)

const nap = defineTask({ name: 'nap', input: unchecked<{ ms: number }>(), run: () => {} })
const stuck = defineTask({ name: 'stuck', input: unchecked<{ seconds: number }>(), run: () => {} })
const hold = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => {} })
const SIGNALS = ['SIGTERM', 'SIGINT'] as const

function runner(options: WorkerSettings['options'] = {}, url: string = bench.schema.url) {
  const { schema } = bench.schema
  const beating = { heartbeat: '200ms', deadAfter: '600ms', queues: { default: 5 } } as const
  return startEngine({ url, schema, mode: 'runner', options: { ...beating, ...options } })
}

describe('the runner', () => {
  test.each(SIGNALS)(
    'finishes running jobs at the first %s, and its process ends by itself',
    async (signal) => {
      const process = await runner()
      const engine = bench.engine()
      const { id } = await engine.enqueue(nap, { ms: 500 })
      await engine.enqueue(nap, { ms: 0 }, { delay: '1h' })
      await process.event('job:started')
      process.kill(signal)
      await process.event('signal')
      expect(await process.event('stopped')).toEqual({ signal })
      expect(await process.exited).toEqual({ code: 0, signal: null })
      expect(await engine.job(id)).toMatchObject({ state: 'completed', attempt: 1, crashCount: 0 })
      expect(await bench.schema.database.query(`SELECT FROM triphase.process`)).toEqual([])
    },
  )

  test.each([
    ['SIGTERM', 'SIGTERM', 143],
    ['SIGINT', 'SIGINT', 130],
    ['SIGTERM', 'SIGINT', 130],
    ['SIGINT', 'SIGTERM', 143],
  ] as const)('ends at once at a second signal: %s, then %s, exits with %i', async (first, second, code) => {
    const process = await runner({ grace: '10m' })
    const engine = bench.engine({
      tasks: [hold],
      queues: { default: 1 },
      heartbeat: '200ms',
      deadAfter: '600ms',
    })
    const { id } = await engine.enqueue(hold, {})
    await process.event('job:started')
    process.kill(first)
    await process.event('signal')
    const stopping = `SELECT FROM triphase.process WHERE stopping`
    await eventually(async () => (await bench.schema.database.query(stopping)).length === 1)
    // One that comes within half a second is the first one's echo, as npm and shells make it.
    process.kill(second)
    const again = setInterval(() => process.kill(second), 100)
    expect(await process.exited).toEqual({ code, signal: null })
    clearInterval(again)
    await engine.start()
    await eventually(async () => (await engine.job(id))?.state === 'completed')
    expect(await engine.job(id)).toMatchObject({ attempt: 1, crashCount: 0 })
  })

  test('ends its process though a statement of a job never ends', async () => {
    const process = await runner({ grace: '100ms' })
    const engine = bench.engine()
    await engine.enqueue(stuck, { seconds: 60 })
    await process.event('napping')
    process.kill('SIGTERM')
    await process.event('stopped')
    expect(await process.exited).toEqual({ code: 0, signal: null })
    const running = await bench.schema.database.query(
      `SELECT pg_cancel_backend(pid) FROM pg_stat_activity
       WHERE query LIKE '%AS stuck%' AND state = 'active' AND pid <> pg_backend_pid()`,
    )
    expect(running).toHaveLength(1)
  })

  test('takes signals that come at the same time for one', async () => {
    const process = await runner()
    const engine = bench.engine()
    const { id } = await engine.enqueue(nap, { ms: 300 })
    await process.event('job:started')
    for (const signal of ['SIGINT', 'SIGINT', 'SIGTERM'] as const) process.kill(signal)
    expect(await process.exited).toEqual({ code: 0, signal: null })
    expect(process.events('signal')).toHaveLength(1)
    expect(await engine.job(id)).toMatchObject({ state: 'completed' })
  })

  test('hands unfinished jobs back when the grace period is over', async () => {
    const process = await runner({ grace: '100ms' })
    const engine = bench.engine()
    const { id } = await engine.enqueue(hold, {})
    await process.event('job:started')
    process.kill('SIGTERM')
    expect(await process.exited).toEqual({ code: 0, signal: null })
    expect(process.events('aborted')).toEqual([{ jobId: id, code: 'STOPPING' }])
    expect(await engine.job(id)).toMatchObject({ state: 'available', attempt: 0, crashCount: 0 })
  })

  test('ends by itself when the signal comes while its first beat is under way', async () => {
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    const beat = proxy.onStatement(/UPDATE \S+\.process SET beat/, 'hold-reply')
    const name = `runner-${bench.schema.schema}`
    // Long beats, or it would be given up before all else has stopped. Through a pooler the listener's name would stay
    // with the server's connection after it has left.
    const beating = { heartbeat: '4s', deadAfter: '12s', directUrl: testDatabaseUrl() } as const
    const process = await runner({ name, ...beating }, proxy.url(bench.schema.url))
    await beat.hit
    process.kill('SIGTERM')
    await process.event('process:stopping')
    // All else has stopped when the beat says that this process leads.
    const listening = `SELECT FROM pg_stat_activity WHERE application_name = $1`
    await eventually(async () => {
      return (await bench.schema.database.query(listening, [`${name}-listen`])).length === 0
    })
    beat.release()
    expect(await process.exited).toEqual({ code: 0, signal: null })
    await proxy.close()
  })

  test('stops, too, when what it runs for is done, or fails', async () => {
    const before = SIGNALS.map((signal) => process.listenerCount(signal))
    const engine = bench.engine({ tasks: [nap] })
    let stopped: AbortSignal | undefined
    const until = async (signal: AbortSignal) => {
      stopped = signal
      const completed = engine.telemetry.next('job:completed')
      await engine.enqueue(nap, { ms: 0 })
      await completed
      expect(signal.aborted).toBe(false)
    }
    expect(await run(engine, { queues: { default: 1 }, until })).toBe(null)
    expect(stopped?.aborted).toBe(true)
    expect(await bench.schema.database.query(`SELECT FROM triphase.process`)).toEqual([])
    expect(SIGNALS.map((signal) => process.listenerCount(signal))).toEqual(before)

    const fault = new Error('the work failed')
    const throws = (): never => {
      throw fault
    }
    for (const fails of [() => Promise.reject(fault), throws]) {
      const failing = bench.engine({ queues: { default: 1 } })
      await expect(run(failing, { until: fails })).rejects.toBe(fault)
      expect(await bench.schema.database.query(`SELECT FROM triphase.process`)).toEqual([])
    }
  })

  test('leaves no signal handler behind, not even when the engine cannot start', async () => {
    const before = SIGNALS.map((signal) => process.listenerCount(signal))
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    proxy.refuse(true)
    const engine = bench.engine({ url: proxy.url(bench.schema.url) })
    await expect(run(engine)).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    expect(SIGNALS.map((signal) => process.listenerCount(signal))).toEqual(before)
    await proxy.close()
  })
})

describe('the library', () => {
  test('installs no handlers of signals or uncaught errors', async () => {
    const names = [
      ...SIGNALS,
      'SIGHUP',
      'SIGUSR2',
      'exit',
      'beforeExit',
      'uncaughtException',
      'unhandledRejection',
    ]
    const counts = () => names.map((name) => process.listenerCount(name))
    const before = counts()
    const engine = bench.engine({ tasks: [nap], queues: { default: 1 } })
    await engine.start()
    const completed = engine.telemetry.next('job:completed')
    await engine.enqueue(nap, { ms: 0 })
    await completed
    expect(counts()).toEqual(before)
    await engine.stop()
    expect(counts()).toEqual(before)
  })

  test.each(SIGNALS)('does not stand in the way of %s', async (signal) => {
    const { url, schema } = bench.schema
    const process = spawnEngine({ url, schema, options: { queues: { default: 1 } } })
    await process.event('ready')
    process.kill(signal)
    expect(await process.exited).toEqual({ code: null, signal })
  })
})
