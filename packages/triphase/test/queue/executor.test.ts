import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { cancel, complete, defineTask, discard, snooze, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'
import { useRunTo } from './run-to.ts'

const bench = useEngines()
const runTo = useRunTo(bench)

describe('completed', () => {
  test.each<[string, unknown, unknown]>([
    ['a value', { n: 1 }, { n: 1 }],
    ['nothing', undefined, null],
    ['null', null, null],
    ['false', false, false],
    ['complete()', complete(), null],
    ['complete(value)', complete([1, 'a\u0000', '\ud800']), [1, 'a\u0000', '\ud800']],
    ['what JSON makes of a Date', new Date(0), '1970-01-01T00:00:00.000Z'],
  ])('with %s', async (_what, returned, result) => {
    const job = await runTo('completed', () => returned)
    expect(job).toMatchObject({ result, error: null, attempt: 1 })
    expect(await job.engine.attempts(job.id)).toEqual([])
  })

  test('what the handler knows of its job', async () => {
    const job = await runTo(
      'completed',
      ({ job: { id, attempt, maxAttempts, tags }, idempotencyKey, signal }) => ({
        ...{ id, attempt, maxAttempts, tags },
        ...{ idempotencyKey, aborted: signal.aborted },
      }),
    )
    expect(job.result).toEqual({
      id: job.id,
      attempt: 1,
      maxAttempts: 10,
      tags: [],
      idempotencyKey: `${bench.schema.schema}-${job.id}-${job.insertedAt.getTime().toString(36)}`,
      aborted: false,
    })
  })
})

describe('snoozed', () => {
  test('runs again after the delay, and no attempt is burned', async () => {
    const times: number[] = []
    const job = await runTo(
      'completed',
      ({ job: { attempt }, idempotencyKey }) => {
        times.push(performance.now())
        return times.length < 4 ? snooze('60ms') : { attempt, idempotencyKey }
      },
      { maxAttempts: 1 },
    )
    expect(job).toMatchObject({ attempt: 1, result: { attempt: 1 } })
    expect((job.result as { idempotencyKey: string }).idempotencyKey).toMatch(`-${job.id}-`)
    for (const [index, time] of times.slice(1).entries()) expect(time - times[index]!).toBeGreaterThan(55)
  })

  test('for no time: again at once, at the end of its queue', async () => {
    const order: unknown[] = []
    const task = defineTask({
      name: 'task',
      input: unchecked<string>(),
      run: ({ input }) => (order.push(input) === 1 ? snooze(0) : null),
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    const [first] = await engine.enqueueMany(task, [{ input: 'a' }, { input: 'b' }])
    await engine.start()
    await jobIn(engine, first!.id, 'completed')
    expect(order).toEqual(['a', 'b', 'a'])
  })
})

test('snoozed for longer than time lasts is a long wait, and not an error', async () => {
  const job = await runTo('scheduled', () => snooze(1e300))
  expect(job.runAt.getTime()).toBeGreaterThan(Date.now() + 3_000 * 86_400_000)
})

test('cancelled by its handler, with the reason', async () => {
  const job = await runTo('cancelled', () => cancel('the order was withdrawn'))
  expect(job.error).toMatchObject({ code: 'CANCELLED', message: 'the order was withdrawn' })
  expect(await job.engine.attempts(job.id)).toMatchObject([{ outcome: 'cancelled', claimNo: 1, attempt: 1 }])
})

test('discarded by its handler, with the reason', async () => {
  const job = await runTo('discarded', () => discard('no such order'))
  expect(job.error).toMatchObject({ name: 'Permanent', message: 'no such order' })
  expect(job).toMatchObject({ attempt: 1, maxAttempts: 10, result: null })
})

describe('what cannot be written as JSON', () => {
  test.each([
    ['a BigInt', 1n],
    ['a function', () => {}],
    ['complete() of a symbol', complete(Symbol('s'))],
  ])('discards the job: %s', async (_what, returned) => {
    const job = await runTo('discarded', () => returned)
    expect(job).toMatchObject({ attempt: 1, result: null })
    expect(JSON.stringify(job.error)).toMatch(/NOT_JSON|cannot be written as JSON/)
  })
})

test('a result that is larger than maxAnswerBytes discards the job', async () => {
  const large = defineTask({ name: 'large', input: unchecked<null>(), run: () => 'é'.repeat(60) })
  const engine = bench.engine({ tasks: [large], queues: { default: 1 }, maxAnswerBytes: 100 })
  await engine.start()
  const { id } = await engine.enqueue(large, null)
  const { error, ...job } = await jobIn(engine, id, 'discarded')
  expect(job).toMatchObject({ attempt: 1, result: null })
  const message = expect.stringContaining('The result has 122 bytes, more than maxAnswerBytes (100)')
  expect(error).toMatchObject({ code: 'RESULT_TOO_LARGE', message })
})

describe('a job that this process cannot run', () => {
  test('of an unknown task waits for a process that knows it, and no attempt is burned', async () => {
    const later = defineTask({ name: 'later', input: unchecked<null>(), run: () => 'known' })
    const engine = bench.engine({ tasks: [], queues: { default: 1 } })
    const retried = engine.telemetry.next('job:retried')
    await engine.start()
    const { id } = await engine.enqueue(later, null, { maxAttempts: 1 })
    const { error, countsAsAttempt } = await retried
    expect(error).toMatchObject({
      code: 'UNKNOWN_TASK',
      message: expect.stringMatching(/no task later.*queue default/),
    })
    expect(countsAsAttempt).toBe(false)
    expect(await engine.job(id)).toMatchObject({ state: 'scheduled', attempt: 0 })
  })

  test('whose input no longer fits the schema is discarded, with the path of the fault', async () => {
    const input = z.object({ order: z.string() })
    const before = defineTask({ name: 'task', input, run: () => null })
    const { id } = await bench.engine().enqueue(before, { order: 'a' })
    const after = defineTask({ name: 'task', input: input.extend({ customer: z.number() }), run: () => null })
    const engine = bench.engine({ tasks: [after], queues: { default: 1 } })
    await engine.start()
    const job = await jobIn(engine, id, 'discarded')
    expect(job).toMatchObject({ attempt: 1, error: { code: 'INVALID_INPUT' } })
    expect((job.error as { message: string }).message).toMatch(/customer: /)
  })
})

test('the handler gets what the schema makes of the input, and the row keeps what was given', async () => {
  const seen: unknown[] = []
  const task = defineTask({
    name: 'task',
    input: z.object({ at: z.coerce.date<string>(), n: z.string().transform(Number).default(7) }),
    run: ({ input }) => {
      seen.push(input.at.getTime(), input.n + 1)
    },
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  await engine.start()
  const { id } = await engine.enqueue(task, { at: '1970-01-01T00:00:01Z' })
  const job = await jobIn(engine, id, 'completed')
  expect(seen).toEqual([1_000, 8])
  expect(job.input).toEqual({ at: '1970-01-01T00:00:01Z' })
})
