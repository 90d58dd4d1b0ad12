import { expect, test } from 'vitest'
import { defineSweep, Permanent, RetryAfter } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_run_records')

interface Row {
  id: string
  body: string
}

const table = { name: records.name, key: 'id' }
const queues = { default: 4 }

test('every record is called once and marked with its result', async () => {
  await records.fill(300)
  const called: string[] = []
  const done: unknown[] = []
  const sweep = defineSweep<Row>({
    name: 'all',
    table,
    pageSize: 40,
    concurrency: 6,
    each: async ({ id, body }) => {
      called.push(id)
      return Number(id) % 2 ? body : { id }
    },
    onDone: ({ run }) => {
      done.push(run)
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  expect(await control.run()).toMatchObject({ created: true })
  const status = await control.settled()
  expect(status).toMatchObject({ state: 'completed', total: 300, done: 300, errors: 0, calls: 300 })
  expect(called.toSorted()).toEqual(Array.from({ length: 300 }, (_, n) => String(n + 1)).toSorted())
  expect(await records.counts()).toEqual({ done: 300 })
  const [first, second] = await records.rows<{ result: string }>('id < 3')
  expect([first?.result, second?.result]).toEqual(['record 1', '{"id":"2"}'])
  expect(done).toEqual([{ id: status.runId, done: 300, errors: 0, calls: 300, spent: 0 }])
})

test('no more calls at a time than the run has slots, over two engines', async () => {
  await records.fill(200)
  let [now, most] = [0, 0]
  const sweep = defineSweep<Row>({
    name: 'slots',
    table,
    pageSize: 10,
    concurrency: 5,
    each: async () => {
      most = Math.max(most, ++now)
      await new Promise((resolve) => setTimeout(resolve, 5))
      now--
    },
  })
  const engines = [bench.engine({ tasks: [sweep], queues }), bench.engine({ tasks: [sweep], queues })]
  await Promise.all(engines.map((engine) => engine.start()))
  await engines[0]!.sweep(sweep).run()
  expect(await engines[1]!.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 200 })
  expect(most).toBeLessThanOrEqual(5)
  expect(most).toBeGreaterThan(1)
})

test('errors: permanent ones at once, others after their retries, each with its reason', async () => {
  await records.fill(30)
  const tries = new Map<string, number>()
  const sweep = defineSweep<Row>({
    name: 'failing',
    table,
    retries: 2,
    backoff: { initial: 10, max: 20 },
    each: async ({ id }, { attempt }) => {
      tries.set(id, (tries.get(id) ?? 0) + 1)
      expect(attempt).toBe(tries.get(id))
      if (id === '3') throw new Permanent('the file is empty')
      if (id === '7') throw new Error('it is down')
      if (id === '9' && attempt < 3) throw new Error('it was down')
      return 'fine'
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({
    state: 'completed',
    done: 28,
    errors: 2,
    calls: 34,
  })
  expect([tries.get('3'), tries.get('7'), tries.get('9')]).toEqual([1, 3, 3])
  expect(await records.rows("status = 'error'")).toMatchObject([
    { id: '3', error_message: 'the file is empty', result: null },
    { id: '7', error_message: 'it is down' },
  ])

  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({
    state: 'completed',
    done: 0,
    errors: 0,
    calls: 0,
  })
})

test('a Retry-After slows all down and counts as no try', async () => {
  await records.fill(20)
  const begun: number[] = []
  let asked = 0
  const sweep = defineSweep<Row>({
    name: 'slow',
    table,
    concurrency: 1,
    retries: 0,
    each: async () => {
      begun.push(performance.now())
      if (asked++ === 4) throw new RetryAfter(700)
      return 'fine'
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ done: 20, errors: 0, calls: 21 })
  expect(begun[5]! - begun[4]!).toBeGreaterThan(650)
})

test('pause, change and resume from another engine; cancel', async () => {
  await records.fill(400)
  const gate = Promise.withResolvers<void>()
  let now = 0
  const sweep = defineSweep<Row>({
    name: 'paused',
    table,
    pageSize: 20,
    concurrency: 3,
    each: async () => {
      now++
      await gate.promise
      now--
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const other = bench.engine({ tasks: [sweep] }).sweep(sweep)
  await other.run()
  await eventually(() => expect(now).toBe(3))
  expect(await other.status()).toMatchObject({ state: 'running', total: 400 })
  expect(await other.pause('lunch')).toBe(true)
  expect(await other.pause('lunch')).toBe(false)
  expect(await other.status()).toMatchObject({ state: 'pausing', reason: 'lunch' })
  gate.resolve()
  await eventually(async () => expect(await other.status()).toMatchObject({ state: 'paused', slots: 0 }))
  const { done } = await other.status()
  expect(done).toBeLessThan(400)
  expect(await other.run()).toMatchObject({ created: false, state: 'paused' })
  expect(await other.resume({ concurrency: 10 })).toBe(true)
  expect(await other.settled()).toMatchObject({ state: 'completed', done: 400, concurrency: 10 })

  await records.fill(400)
  await other.run()
  expect(await other.cancel()).toBe(true)
  expect(await other.status()).toMatchObject({ state: 'cancelled' })
  await eventually(async () => expect(await engine.counts()).toEqual([]))
  await other.run()
  expect(await other.settled()).toMatchObject({ state: 'completed' })
  expect(await records.counts()).toEqual({ done: 400 })
})

test('breakers and budgets pause the run and say why', async () => {
  await records.fill(500)
  let broken = true
  const sweep = defineSweep<Row>({
    name: 'broken',
    table,
    concurrency: 4,
    retries: 0,
    breaker: { inRow: 10 },
    each: async (_record, { spend }) => {
      if (broken) throw new Error('it is down')
      spend(0.5)
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  const paused = await control.settled()
  expect(paused).toMatchObject({
    state: 'paused',
    reason: expect.stringMatching(/^\d+ calls failed in a row$/),
  })
  expect(paused.errors).toBeLessThanOrEqual(14)
  broken = false
  await control.resume({ budget: { calls: 100 } })
  expect(await control.settled()).toMatchObject({
    state: 'paused',
    reason: 'the budget of 100 calls is used up',
  })
  expect((await control.status()).calls).toBe(100)
  await control.resume({ budget: { calls: null, spend: 60 } })
  expect(await control.settled()).toMatchObject({
    state: 'paused',
    reason: expect.stringContaining('of 60 is spent'),
  })
  await control.resume({ budget: { spend: null } })
  expect(await control.settled()).toMatchObject({ state: 'completed', errors: paused.errors })
})

test('errors are grouped by what they say, and can be tried again', async () => {
  await records.fill(60)
  let good = false
  const sweep = defineSweep<Row>({
    name: 'groups',
    table,
    retries: 0,
    breaker: { inRow: 1_000, share: 1, window: 1_000 },
    each: async ({ id }) => {
      if (good) return 'fine'
      if (Number(id) <= 40)
        throw new Permanent(`file ${id} of 12af34bc99de is too large: ${Number(id) * 1.5} MB`)
      throw new Permanent('unreadable')
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  await control.settled()
  const groups = await control.errorGroups()
  expect(groups).toMatchObject([
    { count: 40, pattern: 'file <n> of <id> is too large: <n> MB' },
    { count: 20, pattern: 'unreadable' },
  ])
  const [large, unreadable] = groups
  const some = await control.errors({ group: large!.group, limit: 3, after: ['10'] })
  expect(some.map(({ key }) => key)).toEqual([['11'], ['12'], ['13']])
  for (const after of [[], ['10', 'de']]) {
    await expect(control.errors({ after })).rejects.toMatchObject({
      code: 'INVALID_OPTIONS',
      message: expect.stringContaining('is not a key of id'),
    })
  }
  good = true
  expect(await control.retryErrors({ keys: [['1'], ['41'], ['99']] })).toBe(2)
  expect(await control.retryErrors({ group: unreadable!.group })).toBe(19)
  expect(await records.counts()).toEqual({ error: 39, pending: 21 })
  await control.run()
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 21 })
  expect(await control.retryErrors({ all: true })).toBe(39)
  await expect(control.retryErrors({ keys: [['1'], ['2', '3']] })).rejects.toMatchObject({
    code: 'INVALID_OPTIONS',
    message: expect.stringContaining('["2","3"] is not a key of id'),
  })
  expect(await control.plan({ ms: 100, cost: 2 })).toEqual({
    pending: 39,
    done: 21,
    errors: 0,
    estimatedMs: 487.5,
    estimatedCost: 78,
  })
  expect(await control.sample(2)).toMatchObject([
    { key: ['1'].map(() => expect.any(String)), outcome: 'done', result: 'fine', marked: false },
    { outcome: 'done', marked: false },
  ])
  expect(await control.sample(2, { commit: true })).toMatchObject([{ marked: true }, { marked: true }])
  expect(await records.counts()).toEqual({ done: 23, pending: 37 })
})

test('an application whose database is away is told so as the engine would', async () => {
  const url = 'postgres://127.0.0.1:1/nobody'
  const sweep = defineSweep({
    name: 'away',
    table: { name: records.name, key: 'id' },
    each: async () => null,
  })
  const engine = bench.engine({ tasks: [sweep], application: { url } })
  await expect(engine.sweep(sweep).run()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
})

test('pages take turns in a process: the next begins when all records of the first have begun', async () => {
  await records.fill(60)
  const called: number[] = []
  let [now, most] = [0, 0]
  const sweep = defineSweep<Row>({
    name: 'turns',
    table,
    pageSize: 20,
    concurrency: 4,
    each: async ({ id }) => {
      called.push(Number(id))
      most = Math.max(most, ++now)
      await new Promise((resolve) => setTimeout(resolve, 3))
      now--
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 60, calls: 60 })
  // One page has all the slots, and gives them on one by one at its end.
  expect(most).toBe(4)
  const pages = called.map((id) => Math.floor((id - 1) / 20))
  expect(pages.filter((page, index) => page !== pages[index - 1])).toHaveLength(3)
})
