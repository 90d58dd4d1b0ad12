import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { defineSweep, Permanent } from '../../src/index.ts'
import { type LocalCountingApi, startCountingApi } from '../support/counting-api.ts'
import { useEngines } from '../support/engines.ts'
import { eventually, killWorkers, type WorkerProcess } from '../support/processes.ts'
import { countSweep, type SweepProgramSettings, spawnSweeper } from './count-sweep.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_killed_records')
let api: LocalCountingApi

beforeAll(async () => {
  api = await startCountingApi()
})
afterEach(async () => {
  await killWorkers()
  api.reset()
})
afterAll(() => api.close())

function settings(more: Partial<SweepProgramSettings> = {}): SweepProgramSettings {
  return {
    url: bench.schema.url,
    schema: bench.schema.schema,
    table: records.name,
    apiUrl: api.url,
    concurrency: 12,
    pageSize: 100,
    ...more,
  }
}

function watch(more: Partial<SweepProgramSettings> = {}) {
  const sweep = defineSweep(countSweep(settings(more), (message) => new Permanent(message)))
  return bench.engine({ tasks: [sweep] }).sweep(sweep)
}

async function kill(worker: WorkerProcess): Promise<void> {
  worker.kill()
  await worker.exited
}

/** Calls that were made for a record beyond its first. */
function extraCalls(): number {
  const byKey = new Map<string, number>()
  for (const { key } of api.log) if (key !== 'hook') byKey.set(key, (byKey.get(key) ?? 0) + 1)
  return [...byKey.values()].reduce((sum, calls) => sum + calls - 1, 0)
}

test('10,000 records, killed at 5,000 and started again: nothing is done twice but what was under way', async () => {
  await records.fill(10_000)
  api.behave({ kind: 'error', status: 422 }, { key: '77' })
  api.behave({ kind: 'error', status: 422 }, { key: '7500' })
  const first = spawnSweeper(settings({ run: true }))
  await eventually(() => expect(api.calls).toBeGreaterThan(5_000), { timeout: 30_000, interval: 2 })
  await kill(first)
  const markedBefore = await records.rows("status <> 'pending'")
  const callsBefore = new Map<string, number>()
  for (const { key } of api.log) callsBefore.set(key, (callsBefore.get(key) ?? 0) + 1)

  spawnSweeper(settings({ run: true }))
  const status = await eventually(
    async () => {
      const now = await watch().status()
      return now.state === 'completed' ? now : null
    },
    { timeout: 40_000, interval: 200 },
  )
  expect(status).toMatchObject({ total: 10_000, done: 9_998, errors: 2 })
  expect(await records.counts()).toEqual({ done: 9_998, error: 2 })
  expect(markedBefore.length).toBeGreaterThan(4_000)
  expect(markedBefore.length).toBeLessThan(10_000)
  for (const { id } of markedBefore) expect(api.callsFor(String(id))).toBe(callsBefore.get(String(id)))
  expect(extraCalls()).toBeLessThanOrEqual(12)
  expect(api.callsFor('hook')).toBe(1)
  const keys = new Map<string, Set<string | undefined>>()
  for (const { key, idempotencyKey } of api.log) {
    keys.set(key, (keys.get(key) ?? new Set()).add(idempotencyKey))
  }
  expect([...keys.values()].every((used) => used.size === 1)).toBe(true)

  // What is marked is marked: errors are not tried again by a plain re-run.
  const calls = api.calls
  expect(await watch().run()).toMatchObject({ created: true })
  await eventually(
    async () => expect(await watch().status()).toMatchObject({ state: 'completed', calls: 0 }),
    { timeout: 20_000 },
  )
  expect(api.calls).toBe(calls + 1)
  expect(api.callsFor('hook')).toBe(2)
})

test('three processes, one of them killed again and again: each record once, the hook once', async () => {
  await records.fill(1_500)
  api.behave({ kind: 'answer', afterMs: 20 })
  const workers = [spawnSweeper(settings({ run: true })), spawnSweeper(settings()), spawnSweeper(settings())]
  let kills = 0
  const control = watch()
  const deadline = Date.now() + 50_000
  while (Date.now() < deadline) {
    const before = api.calls
    await eventually(() => api.calls > before + 150 || api.callsFor('hook') > 0, { timeout: 20_000 })
    if (api.callsFor('hook') > 0) break
    const victim = kills % 3
    await kill(workers[victim]!)
    kills++
    workers[victim] = spawnSweeper(settings())
  }
  await eventually(async () => expect(await control.status()).toMatchObject({ state: 'completed' }))
  expect(kills).toBeGreaterThan(3)
  expect(await records.counts()).toEqual({ done: 1_500 })
  expect(await control.status()).toMatchObject({ done: 1_500, errors: 0 })
  expect(extraCalls()).toBeLessThanOrEqual(12 * kills)
  expect(api.callsFor('hook')).toBe(1)
})

test('a record that kills its process is found, marked, and holds up nobody', async () => {
  await records.fill(200)
  const poisoned = settings({ run: true, poison: '30', concurrency: 4, pageSize: 50 })
  const control = watch({ concurrency: 4 })
  for (let starts = 0; starts < 8; starts++) {
    const worker = spawnSweeper(poisoned)
    const over = eventually(async () => (await control.status()).state === 'completed', { timeout: 30_000 })
    if (await Promise.race([worker.exited.then(() => false), over])) break
    over.catch(() => {})
  }
  expect(await control.status()).toMatchObject({ state: 'completed', done: 199, errors: 1 })
  expect(await records.rows("status = 'error'")).toMatchObject([
    { id: '30', error_message: expect.stringContaining('its process died 3 times') },
  ])
})

test('a run that was pausing when its process died is paused, whether anybody rescues its pages or not', async () => {
  await records.fill(100)
  api.hold()
  const worker = spawnSweeper(settings({ run: true, concurrency: 5 }))
  await eventually(() => expect(api.calls).toBe(5))
  const control = watch()
  expect(await control.pause()).toBe(true)
  expect(await control.status()).toMatchObject({ state: 'pausing', slots: expect.any(Number) })
  await kill(worker)
  const { database } = bench.schema
  await database.query("UPDATE triphase.process SET beat_at = beat_at - interval '1 minute'")
  expect(await control.status()).toMatchObject({ state: 'paused', slots: 0 })
  api.reset()
  expect(await control.resume()).toBe(true)
  expect(await control.status()).toMatchObject({ state: 'interrupted' })
  spawnSweeper(settings())
  await eventually(
    async () => expect(await control.status()).toMatchObject({ state: 'completed', done: 100 }),
    {
      timeout: 20_000,
    },
  )
  expect(api.calls).toBe(101)
})
