import { afterEach, describe, expect, test } from 'vitest'
import { defineTask, type Engine, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { type EngineProcess, startEngine } from './worker-processes.ts'

const HEARTBEAT_MS = 200
const DEAD_AFTER_MS = 600
const QUICK = { heartbeat: HEARTBEAT_MS, deadAfter: DEAD_AFTER_MS, queues: { default: 20 } }
const JOBS = 20

const bench = useEngines()
afterEach(killWorkers)

/** `hold` of the worker program, done at once here. */
const hold = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => 'done by the survivor' })

type Victim = EngineProcess & { processId: string }

/** A process that runs 20 jobs and will not finish them. */
async function victimWithJobs(): Promise<{ victim: Victim; ids: string[] }> {
  const { url, schema } = bench.schema
  const victim = await startEngine({ url, schema, options: QUICK })
  const enqueued = await bench.engine().enqueueMany(hold, Array(JOBS).fill({ input: {} }))
  await eventually(() => victim.events('job:started').length === JOBS)
  return { victim, ids: enqueued.map(({ id }) => id) }
}

async function survivor(): Promise<Engine<never>> {
  const engine = bench.engine({ ...QUICK, tasks: [hold] })
  await engine.start()
  return engine as unknown as Engine<never>
}

/** Kills it and waits until another process has done its jobs; returns how long that took, in milliseconds. */
async function killAndWait(victim: Victim, ids: string[], engine: Engine<never>): Promise<number> {
  const left = new Set(ids)
  const done = new Promise<void>((resolve) => {
    engine.telemetry.on('job:completed', ({ jobId }) => {
      left.delete(jobId)
      if (left.size === 0) resolve()
    })
  })
  const killed = performance.now()
  victim.kill('SIGKILL')
  await done
  return performance.now() - killed
}

async function expectOneCrashEach(engine: Engine<never>, victim: Victim, ids: string[]): Promise<void> {
  for (const id of ids) {
    expect(await engine.job(id)).toMatchObject({
      state: 'completed',
      result: 'done by the survivor',
      attempt: 1,
      crashCount: 1,
    })
    const error = { message: expect.stringContaining(`pid ${victim.pid}`) }
    expect(await engine.attempts(id)).toMatchObject([{ claimNo: 1, attempt: 1, outcome: 'crashed', error }])
  }
}

describe('the jobs of a process that is killed with SIGKILL', () => {
  test('run again at the next beat of a peer on the same machine, which sees that the process id is gone', async () => {
    const { victim, ids } = await victimWithJobs()
    const engine = await survivor()
    const ms = await killAndWait(victim, ids, engine)
    await expectOneCrashEach(engine, victim, ids)
    expect(ms).toBeLessThan(DEAD_AFTER_MS + 4_000)
  })

  test('run again after deadAfter where nobody can look at the process', async () => {
    const { victim, ids } = await victimWithJobs()
    const { database } = bench.schema
    await database.query(`UPDATE triphase.process SET machine = 'elsewhere' WHERE id = $1`, [
      victim.processId,
    ])
    const engine = await survivor()
    const ms = await killAndWait(victim, ids, engine)
    await expectOneCrashEach(engine, victim, ids)
    expect(ms).toBeGreaterThan(DEAD_AFTER_MS - 2 * HEARTBEAT_MS)
    expect(ms).toBeLessThan(DEAD_AFTER_MS + 2 * HEARTBEAT_MS + 4_000)
  })

  test('run again in the next process, when it was the only one', async () => {
    const { victim, ids } = await victimWithJobs()
    victim.kill('SIGKILL')
    await victim.exited
    const engine = await survivor()
    await eventually(async () => (await engine.counts()).length === 0)
    await expectOneCrashEach(engine, victim, ids)
  })

  test('are rescued once, however many peers there are', async () => {
    const { victim, ids } = await victimWithJobs()
    const engines = await Promise.all([survivor(), survivor(), survivor()])
    const rescues: string[][] = []
    for (const engine of engines)
      engine.telemetry.on('jobs:rescued', ({ processId, again }) => {
        if (processId === victim.processId) rescues.push(again)
      })
    victim.kill('SIGKILL')
    await eventually(async () => (await engines[0].counts()).length === 0)
    expect(rescues.map((again) => again.length)).toEqual([JOBS])
    await expectOneCrashEach(engines[0], victim, ids)
  })

  test('keep their attempts: a job with one attempt left is run again', async () => {
    const { url, schema } = bench.schema
    const victim = await startEngine({ url, schema, options: QUICK })
    const { id } = await bench.engine().enqueue(hold, {}, { maxAttempts: 1 })
    await victim.event('job:started')
    const engine = await survivor()
    await killAndWait(victim, [id], engine)
    expect(await engine.job(id)).toMatchObject({ state: 'completed', attempt: 1, maxAttempts: 1 })
  })
})

test('a process that was stopping when it died has crashed none of its jobs', async () => {
  const { url, schema } = bench.schema
  const victim = await startEngine({ url, schema, mode: 'runner', options: { ...QUICK, grace: '10m' } })
  const { id } = await bench.engine().enqueue(hold, {})
  await victim.event('job:started')
  victim.kill('SIGTERM')
  const { database } = bench.schema
  await eventually(
    async () => (await database.query(`SELECT FROM triphase.process WHERE stopping`)).length === 1,
  )
  const engine = await survivor()
  await killAndWait(victim, [id], engine)
  expect(await engine.job(id)).toMatchObject({ state: 'completed', attempt: 1, crashCount: 0 })
})
