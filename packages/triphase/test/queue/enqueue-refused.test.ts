import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineTask, type TaskReference, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()

const send = defineTask({
  name: 'send',
  input: z.object({ to: z.string(), copies: z.number().int().min(1).optional() }),
  run: ({ input }) => input,
})
const anything = defineTask({ name: 'anything', input: unchecked<unknown>(), run: ({ input }) => input })

async function expectNothingWritten(): Promise<void> {
  expect(await bench.schema.database.query('SELECT id FROM triphase.job')).toEqual([])
  expect(await bench.schema.database.query('SELECT key FROM triphase.job_unique')).toEqual([])
}

describe('refused, and nothing written', () => {
  test('an input that does not fit, with the path of each fault', async () => {
    const order = defineTask({
      name: 'order',
      input: z.object({ items: z.array(z.object({ sku: z.string(), count: z.number().min(1) })) }),
      run: () => null,
    })
    const wrong = {
      items: [
        { sku: 'a', count: 1 },
        { sku: 3 as never, count: 0 },
      ],
    }
    const refused = bench.engine().enqueue(order, wrong)
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_INPUT' })
    await expect(refused).rejects.toThrow(/order .*items\.1\.sku: .*items\.1\.count: /)
    await expectNothingWritten()
  })

  test('one bad input among many, with its index', async () => {
    const jobs = Array.from({ length: 20 }, (_, n) => ({ input: { to: `${n}` }, uniqueKey: `${n}` }))
    jobs[7] = { input: { to: 7 as never }, uniqueKey: '7' }
    jobs[12] = { input: {} as never, uniqueKey: '12' }
    const refused = bench.engine().enqueueMany(send, jobs)
    await expect(refused).rejects.toThrow(/\[7\] .*to: [\s\S]*\[12\] .*to: /)
    await expectNothingWritten()
  })

  test('options that do not exist, each by its name', async () => {
    const engine = bench.engine()
    const refused = engine.enqueue(send, { to: 'a' }, { priorty: 'high', retries: 3 } as never)
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_INPUT' })
    await expect(refused).rejects.toThrow(/priorty: there is no such option \(there are .*priority.*\)/)
    await expect(refused).rejects.toThrow(/retries: /)
    await expect(engine.enqueueMany(send, [{ input: { to: 'a' }, tag: 'x' } as never])).rejects.toThrow(
      /tag: /,
    )
    await expectNothingWritten()
  })

  test.each<[string, object, RegExp]>([
    ['delay', { delay: 'soon' }, /delay: a length of time/],
    ['delay', { delay: -1 }, /delay: /],
    ['delay', { delay: '20000d' }, /delay: .*10 years/],
    ['runAt', { runAt: new Date(Number.NaN) }, /runAt: a valid date/],
    ['runAt', { runAt: '2030-01-01' }, /runAt: a valid date/],
    ['runAt', { runAt: new Date(-8.64e15) }, /runAt: a valid date/],
    ['delay and runAt', { delay: 1, runAt: new Date() }, /delay and runAt: only one/],
    ['priority', { priority: 'highest' }, /priority: urgent, high, normal or low/],
    ['queue', { queue: 'a b' }, /queue: 1 to 100 letters/],
    ['queue', { queue: '' }, /queue: /],
    ['maxAttempts', { maxAttempts: 0 }, /maxAttempts: a whole number/],
    ['maxAttempts', { maxAttempts: 1.5 }, /maxAttempts: /],
    ['maxCrashes', { maxCrashes: 40_000 }, /maxCrashes: /],
    ['timeout', { timeout: 0 }, /timeout: more than 0 ms/],
    ['timeout', { timeout: '30d' }, /timeout: .*24 days/],
    ['backoff', { backoff: { initial: '1s' } }, /backoff: /],
    ['uniqueFor', { uniqueFor: '1h' }, /uniqueFor: needs a uniqueKey/],
    ['uniqueFor', { uniqueKey: 'a', uniqueFor: 'long' }, /uniqueFor: a length/],
    ['uniqueKey', { uniqueKey: '' }, /uniqueKey: 1 to 500 characters/],
    ['uniqueKey', { uniqueKey: 'a\u0000b' }, /uniqueKey: .*\\u0000/],
    ['uniqueKey', { uniqueKey: '\ud800' }, /uniqueKey: /],
    ['uniqueKey', { uniqueKey: 'a'.repeat(501) }, /uniqueKey: /],
    ['tags', { tags: ['fine', 'not\u0000fine'] }, /tags\.1: /],
    ['tags', { tags: ['\udfff tail first'] }, /tags\.0: /],
    ['tags', { tags: 'urgent' as never }, /tags: a list/],
  ])('%s: %o', async (_name, options, message) => {
    const refused = bench.engine().enqueue(send, { to: 'a' }, options)
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_INPUT' })
    await expect(refused).rejects.toThrow(message)
    await expectNothingWritten()
  })

  test('every fault of input and options at once', async () => {
    const refused = bench
      .engine()
      .enqueue(send, { copies: 0 } as never, { delay: -1, priority: 'x' as never })
    await expect(refused).rejects.toThrow(/priority: [\s\S]*delay: [\s\S]*to: [\s\S]*copies: /)
  })

  const cycle: { self?: unknown } = {}
  cycle.self = cycle
  test.each([
    ['a BigInt', { amount: 1n }],
    ['a cycle', cycle],
    ['a function', () => {}],
    ['a symbol', Symbol('s')],
  ])('what JSON cannot carry: %s', async (_what, input) => {
    const refused = bench.engine().enqueue(anything, input)
    await expect(refused).rejects.toMatchObject({ code: 'INVALID_INPUT' })
    await expect(refused).rejects.toThrow(/anything cannot be written as JSON/)
    await expectNothingWritten()
  })

  test('what JSON changes so that the handler would refuse it', async () => {
    const remind = defineTask({ name: 'remind', input: z.object({ at: z.date() }), run: () => null })
    await expect(bench.engine().enqueue(remind, { at: new Date() })).rejects.toThrow(/remind .*at: /)
    await expectNothingWritten()
  })

  test('an error of the schema itself', async () => {
    const broken: TaskReference<string> = {
      name: 'broken',
      options: {},
      input: {
        '~standard': {
          version: 1,
          vendor: 'test',
          validate: () => Promise.reject(new Error('the schema is broken')),
        },
      },
    }
    await expect(bench.engine().enqueue(broken, 'x')).rejects.toThrow('the schema is broken')
    await expectNothingWritten()
  })
})
