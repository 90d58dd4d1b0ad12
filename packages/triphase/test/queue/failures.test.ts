import { describe, expect, test } from 'vitest'
import { Permanent, RetryAfter } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { useRunTo } from './run-to.ts'

const bench = useEngines()
const runTo = useRunTo(bench)

const QUICK = { backoff: { initial: 1 } }

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

  test('that cannot be read is tried again like any other', async () => {
    const unreadable = Object.defineProperties(new Error(), {
      message: { get: () => Promise.reject.call(null) },
      code: { get: () => Promise.reject.call(null) },
    })
    const job = await runTo(
      'completed',
      ({ job: { attempt } }) => {
        if (attempt === 1) throw unreadable
      },
      QUICK,
    )
    expect(job.attempt).toBe(2)
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

  test.each([[0], [-5]])(
    'of %d ms comes back after a second: at once it would be a loop without end',
    async (delayMs) => {
      let calls = 0
      const job = await runTo('completed', () => {
        if (++calls === 1) throw new RetryAfter(delayMs)
      })
      expect(job.finishedAt!.getTime() - job.insertedAt.getTime()).toBeGreaterThan(950)
    },
  )

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
