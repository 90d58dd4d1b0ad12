// What the defaults promise (a beat every 4 s, dead after 12 s), at their real length. The tests wait most of the
// time, so they run at the same time, each on a schema of its own: about 40 s in all.
import type pg from 'pg'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import {
  type CreateEngineOptions,
  createEngine,
  defineTask,
  type Engine,
  unchecked,
} from '../../src/index.ts'
import { type TestSchema, takeSchema } from '../../src/testing/index.ts'
import { testUrl } from '../support/engines.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { startEngine } from './worker-processes.ts'

type PgEngine = Engine<pg.PoolClient>

const RESCUE_LIMIT_MS = 20_000
const OUTAGE_MS = 15_000
const STOPPED_MS = 30_000
const JOBS = 20

afterAll(killWorkers)

async function ownSchema(): Promise<TestSchema> {
  const schema = await takeSchema(testUrl())
  onTestFinished(() => schema.release())
  return schema
}

async function ownProxy(): Promise<FaultProxy> {
  const proxy = await startFaultProxy(serverAddress(testUrl()))
  onTestFinished(() => proxy.close())
  return proxy
}

function engineOn(
  { url, schema }: TestSchema,
  options: Partial<CreateEngineOptions<pg.PoolClient>> = {},
): PgEngine {
  const engine = createEngine({ url, schema, engine: { size: 3 }, ...options })
  onTestFinished(() => engine.stop({ graceMs: 0 }))
  return engine
}

const hold = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => 'done by the survivor' })
const holdMany = Array(JOBS).fill({ input: {} })
const noise = ['jobs:rescued', 'process:lost', 'job:lost', 'job:retried'] as const

/** Everything that must not happen to the living. */
function noiseOf(engines: readonly PgEngine[]): string[] {
  const heard: string[] = []
  for (const engine of engines) {
    for (const name of noise)
      engine.telemetry.on(name, (event) => heard.push(`${name} ${JSON.stringify(event)}`))
  }
  return heard
}

/** Waits until every registered process has beaten so many times more. */
async function beats(schema: TestSchema, more: number): Promise<void> {
  const read = async () => {
    const rows = await schema.database.query<{ id: string; beat: string }>(
      `SELECT id, beat FROM triphase.process`,
    )
    return new Map(rows.map(({ id, beat }) => [id, Number(beat)]))
  }
  const before = await read()
  await eventually(
    async () => {
      const now = await read()
      return [...before].every(([id, beat]) => (now.get(id) ?? 0) >= beat + more)
    },
    { timeout: 60_000, interval: 250 },
  )
}

function lasting(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** Twenty jobs in a process that is killed: how long until all of them have run elsewhere, in milliseconds. */
async function timeToRescue(
  schema: TestSchema,
  beforeKill: (processId: string) => Promise<void>,
): Promise<number> {
  const victim = await startEngine({ ...schema, options: { queues: { default: JOBS } } })
  const engine = engineOn(schema, { tasks: [hold], queues: { default: JOBS } })
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

describe.concurrent('at default settings', { timeout: 90_000 }, () => {
  test('the jobs of a killed process run again within 20 s, and within two beats on its own machine', async () => {
    const ms = await timeToRescue(await ownSchema(), async () => {})
    expect(ms).toBeLessThan(8_000)
  })

  test('the jobs of a killed process run again within 20 s where nobody can look at the process', async () => {
    const schema = await ownSchema()
    const ms = await timeToRescue(schema, async (processId) => {
      await schema.database.query(`UPDATE triphase.process SET machine = NULL WHERE id = $1`, [processId])
    })
    expect(ms).toBeGreaterThan(8_000)
    expect(ms).toBeLessThan(RESCUE_LIMIT_MS)
  })

  test('nobody rescues the living after the network was away for longer than deadAfter', async () => {
    const schema = await ownSchema()
    const proxy = await ownProxy()
    const release = Promise.withResolvers<void>()
    const held = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => release.promise })
    const options = { url: proxy.url(schema.url), tasks: [held], queues: { default: JOBS / 2 } }
    const engines = [engineOn(schema, options), engineOn(schema, options)]
    const heard = noiseOf(engines)
    await Promise.all(engines.map((engine) => engine.start()))
    await engineOn(schema).enqueueMany(held, holdMany)
    await eventually(async () => (await engineOn(schema).counts())[0]?.state === 'executing')
    proxy.freeze(true)
    await lasting(OUTAGE_MS)
    proxy.freeze(false)
    await beats(schema, 4)
    release.resolve()
    await eventually(async () => (await schema.database.query(`SELECT FROM triphase.job`)).length === 0)
    const history = await schema.database.query(
      `SELECT claim_no, crash_count, state FROM triphase.job_history`,
    )
    expect(history).toEqual(Array(JOBS).fill({ claim_no: 1, crash_count: 0, state: 'completed' }))
    expect(heard).toEqual([])
  })

  test('a process stopped for 30 s is rescued, hears of it when it wakes, and works on', async () => {
    const schema = await ownSchema()
    const sleeper = await startEngine({ ...schema, options: { queues: { default: JOBS, own: 1 } } })
    const engine = engineOn(schema, { tasks: [hold], queues: { default: JOBS } })
    await engine.enqueueMany(hold, holdMany)
    await eventually(() => sleeper.events('job:started').length === JOBS)
    await engine.start()
    sleeper.kill('SIGSTOP')
    const rescued = performance.now()
    await Promise.all([
      lasting(STOPPED_MS),
      engine.telemetry.next('jobs:rescued').then(() => {
        expect(performance.now() - rescued).toBeLessThan(RESCUE_LIMIT_MS)
      }),
    ])
    sleeper.kill('SIGCONT')
    await sleeper.event('process:lost')
    await eventually(() =>
      expect(sleeper.events('aborted').map(({ code }) => code)).toEqual(Array(JOBS).fill('CLAIM_LOST')),
    )
    await engine.enqueue({ ...hold, name: 'nap' }, { ms: 0 }, { queue: 'own' })
    await sleeper.event('job:completed')
    const history = await schema.database.query(
      `SELECT result::text FROM triphase.job_history WHERE task = 'hold'`,
    )
    expect(history).toEqual(Array(JOBS).fill({ result: '"done by the survivor"' }))
  })

  test('a beat that is lost on the way is given up and sent again before its process is taken for dead', async () => {
    const schema = await ownSchema()
    const proxy = await ownProxy()
    const beating = { heartbeat: '1s', deadAfter: '3s' } as const
    const cutOff = engineOn(schema, { ...beating, url: proxy.url(schema.url), name: 'cut off' })
    const peer = engineOn(schema, beating)
    const heard = noiseOf([cutOff, peer])
    await Promise.all([cutOff.start(), peer.start()])
    const lost = proxy.onStatement(/UPDATE \w+\.process SET beat/, 'hold-before')
    await lost.hit
    const failed = await cutOff.telemetry.next('heartbeat:failed')
    expect(failed.error.code).toBe('STATEMENT_TIMEOUT')
    await beats(schema, 5)
    expect(heard).toEqual([])
  })

  test('a stop while the database is away ends, and the jobs are found by the others', async () => {
    const schema = await ownSchema()
    const proxy = await ownProxy()
    const held = defineTask({
      name: 'hold',
      input: unchecked<unknown>(),
      run: ({ signal }) =>
        new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    })
    const engine = engineOn(schema, { url: proxy.url(schema.url), tasks: [held], queues: { default: JOBS } })
    await engine.start()
    await engine.enqueueMany(held, holdMany)
    await eventually(async () => (await engine.counts())[0]?.state === 'executing')
    proxy.freeze(true)
    const began = performance.now()
    await engine.stop({ graceMs: 0 })
    expect(performance.now() - began).toBeLessThan(60_000)
    const next = engineOn(schema, { tasks: [hold], queues: { default: JOBS } })
    await next.start()
    await eventually(async () => (await next.counts()).length === 0, { timeout: 40_000, interval: 100 })
  })
})
