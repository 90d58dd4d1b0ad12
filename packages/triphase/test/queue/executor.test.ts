import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  cancel,
  complete,
  defineTask,
  discard,
  type Engine,
  type Job,
  type JobContext,
  type JobState,
  Permanent,
  RetryAfter,
  snooze,
  type TaskOptions,
  TriphaseError,
  unchecked,
} from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()

type Run = (context: JobContext<unknown>) => unknown

/** Enqueues one job that does `run`, and returns it once it is in this state. */
async function runTo(
  state: JobState,
  run: Run,
  options: TaskOptions = {},
): Promise<Job & { engine: Engine<never> }> {
  const task = defineTask({ name: 'task', input: unchecked<unknown>(), run, ...options })
  // The heartbeat is too rare to help: what is due must be found by itself.
  const engine = bench.engine({
    tasks: [task],
    queues: { default: { concurrency: 1, timeout: '20s' } },
    heartbeat: '30s',
    deadAfter: '90s',
  })
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  return { ...(await jobIn(engine, id, state)), engine: engine as unknown as Engine<never> }
}

const QUICK = { backoff: { initial: 1 } }

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
      idempotencyKey: `${bench.schema.schema}-job-${job.id}`,
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
    expect((job.result as { idempotencyKey: string }).idempotencyKey).toMatch(`-job-${job.id}`)
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

describe('a failure', () => {
  test('is tried again after a delay that grows, with the attempts kept', async () => {
    const delays: number[] = []
    const times: number[] = []
    const job = await runTo(
      'completed',
      ({ job: { attempt } }) => {
        times.push(performance.now())
        if (attempt < 4) throw new Error(`failure ${attempt}`, { cause: new TypeError('deep down') })
        return attempt
      },
      { backoff: { initial: 40, factor: 2 } },
    )
    expect(job).toMatchObject({ attempt: 4, result: 4 })
    for (const [index, time] of times.slice(1).entries()) delays.push(time - times[index]!)
    expect(delays[0]).toBeGreaterThan(19)
    expect(delays[1]).toBeGreaterThan(39)
    expect(delays[2]).toBeGreaterThan(79)
    const attempts = await job.engine.attempts(job.id)
    expect(attempts).toHaveLength(3)
    expect(attempts[2]).toMatchObject({
      outcome: 'retried',
      attempt: 3,
      claimNo: 3,
      checkouts: 0,
      error: { name: 'Error', message: 'failure 3', cause: { name: 'TypeError', message: 'deep down' } },
    })
  })

  test('waits as retryable, due later', async () => {
    const job = await runTo('retryable', () => Promise.reject(new Error('later')), {
      backoff: { initial: '1h' },
    })
    expect(job.runAt.getTime()).toBeGreaterThan(Date.now() + 29 * 60_000)
    expect(job).toMatchObject({ attempt: 1, error: null })
  })

  test('of the last attempt discards, with the error kept', async () => {
    const job = await runTo(
      'discarded',
      ({ job: { attempt } }) => Promise.reject(new Error(`no ${attempt}`)),
      {
        maxAttempts: 3,
        ...QUICK,
      },
    )
    expect(job).toMatchObject({ attempt: 3, error: { name: 'Error', message: 'no 3' } })
    expect((job.error as { stack: string }).stack).toMatch(/no 3/)
    const attempts = await job.engine.attempts(job.id)
    expect(attempts.map(({ outcome }) => outcome)).toEqual(['retried', 'retried', 'discarded'])
  })

  test('that is Permanent discards at once', async () => {
    const job = await runTo('discarded', () => {
      throw new Permanent('refused by the model', { cause: new Error('400') })
    })
    expect(job).toMatchObject({ attempt: 1, error: { name: 'Permanent', cause: { message: '400' } } })
  })

  test.each([
    ['a text', 'just a text', 'just a text'],
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
    ['an object', { status: 500 }, '[object Object]'],
    ['an object that cannot be written', Object.create(null), ''],
    ['a text that Postgres cannot store', 'a\u0000\ud800', 'a\u0000\ud800'],
  ])('that is no error: %s', async (_what, thrown, message) => {
    const job = await runTo('discarded', () => Promise.reject(thrown), { maxAttempts: 1 })
    expect(job.error).toMatchObject({ name: 'NotAnError' })
    if (message) expect((job.error as { message: string }).message).toBe(message)
  })

  test('whose message is no text is a failure like others', async () => {
    const strange = Object.assign(new Error(), {
      message: { of: 'some library' } as never,
      name: undefined as never,
    })
    const job = await runTo('retryable', () => Promise.reject(strange), { backoff: { initial: '1h' } })
    expect(await job.engine.attempts(job.id)).toMatchObject([{ error: { message: '[object Object]' } }])
  })

  test('with a long message is cut', async () => {
    const job = await runTo('discarded', () => Promise.reject(new Error('x'.repeat(100_000))), {
      maxAttempts: 1,
    })
    expect((job.error as { message: string }).message).toHaveLength(4_000)
  })
})

describe('RetryAfter', () => {
  test('comes back after the delay, and no attempt is burned', async () => {
    let calls = 0
    const times: number[] = []
    const job = await runTo(
      'completed',
      ({ job: { attempt } }) => {
        times.push(performance.now())
        if (++calls <= 3) throw new RetryAfter(50)
        return attempt
      },
      { maxAttempts: 1 },
    )
    expect(job).toMatchObject({ attempt: 1, result: 1 })
    for (const [index, time] of times.slice(1).entries()) expect(time - times[index]!).toBeGreaterThan(45)
    expect(await job.engine.attempts(job.id)).toMatchObject(Array(3).fill({ outcome: 'retried', attempt: 1 }))
  })

  test.each([[0], [-5], [Number.NaN]])('of %d ms comes back at once', async (delayMs) => {
    let calls = 0
    const job = await runTo('completed', () => {
      if (++calls === 1) throw new RetryAfter(delayMs)
    })
    expect(job.finishedAt!.getTime() - job.insertedAt.getTime()).toBeLessThan(3_000)
  })

  test.each([[1e300], [Number.POSITIVE_INFINITY]])(
    'of %d ms is a long wait, and not an error',
    async (delayMs) => {
      const job = await runTo('retryable', () => {
        throw new RetryAfter(delayMs)
      })
      expect(job.runAt.getTime()).toBeGreaterThan(Date.now() + 3_000 * 86_400_000)
    },
  )
})

test('snoozed for longer than time lasts is a long wait, and not an error', async () => {
  const job = await runTo('scheduled', () => snooze(1e300))
  expect(job.runAt.getTime()).toBeGreaterThan(Date.now() + 3_000 * 86_400_000)
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

describe('a time limit', () => {
  const untilAborted: Run = async ({ signal }) => {
    await delay(20_000, undefined, { signal }).catch(() => {})
    signal.throwIfAborted()
  }

  test("of the task fires the signal and is tried again as the task's failure", async () => {
    const reasons: unknown[] = []
    const job = await runTo(
      'discarded',
      (context) => {
        context.signal.addEventListener('abort', () => reasons.push(context.signal.reason))
        return untilAborted(context)
      },
      { timeout: 40, maxAttempts: 2, ...QUICK },
    )
    expect(reasons).toHaveLength(2)
    expect(reasons[0]).toBeInstanceOf(TriphaseError)
    expect(job).toMatchObject({ attempt: 2, error: { code: 'TIMEOUT' } })
    expect((job.error as { message: string }).message).toMatch(/Task task took longer than 40 ms/)
  })

  test.each([
    ['job', { timeout: '10s' }, { timeout: 30 }, 30],
    ['task', { timeout: 35 }, {}, 35],
    ['queue', {}, {}, 45],
  ] as const)('of the %s', async (_whose, ofTask, ofJob, limitMs) => {
    const task = defineTask({
      name: 'task',
      input: unchecked<null>(),
      run: untilAborted,
      maxAttempts: 1,
      ...ofTask,
    })
    const engine = bench.engine({ tasks: [task], queues: { default: { concurrency: 1, timeout: 45 } } })
    await engine.start()
    const { id } = await engine.enqueue(task, null, ofJob)
    const job = await jobIn(engine, id, 'discarded')
    expect((job.error as { message: string }).message).toContain(`longer than ${limitMs} ms`)
  })

  test('of one job may be longer than that of its task', async () => {
    const task = defineTask({
      name: 'task',
      input: unchecked<null>(),
      timeout: 20,
      maxAttempts: 1,
      run: ({ signal }) => delay(80, 'in time', { signal }),
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(task, null, { timeout: '10s' })
    expect((await jobIn(engine, id, 'completed')).result).toBe('in time')
  })

  test('that a handler ignores leaves its result, when it comes within the grace of the abort', async () => {
    const job = await runTo('completed', () => delay(60, 'late, but there'), { timeout: 20 })
    expect(job.result).toBe('late, but there')
  })

  test('that a handler ignores for longer is reported, and the slot stays taken', async () => {
    const release = Promise.withResolvers<void>()
    let running = 0
    let most = 0
    const task = defineTask({
      name: 'task',
      input: unchecked<string>(),
      timeout: 30,
      maxAttempts: 1,
      run: async ({ input }) => {
        most = Math.max(most, ++running)
        if (input === 'leaks') await release.promise
        running--
      },
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 }, abortGrace: 30 })
    const leaked = engine.telemetry.next('job:leaked')
    const [leaks, next] = await engine.enqueueMany(task, [{ input: 'leaks' }, { input: 'next' }])
    await engine.start()
    expect(await leaked).toMatchObject({
      jobId: leaks!.id,
      reason: expect.stringMatching(/longer than 30 ms/),
    })
    await jobIn(engine, leaks!.id, 'discarded')
    expect((await engine.job(next!.id))?.state).toBe('available')
    release.resolve()
    await jobIn(engine, next!.id, 'completed')
    expect(most).toBe(1)
  })
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
