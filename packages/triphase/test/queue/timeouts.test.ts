import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { defineTask, TriphaseError, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'
import { type Run, useRunTo } from './run-to.ts'

const bench = useEngines()
const runTo = useRunTo(bench)
const anything = defineTask({ name: 'anything', input: unchecked<null>(), run: () => {} })

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
      { timeout: 40, maxAttempts: 2, backoff: { initial: 1 } },
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

  test.each(['16.1s', '0.4ms'] as const)('of one job need not be whole milliseconds: %s', async (timeout) => {
    const { id } = await bench.engine().enqueue(anything, null, { timeout })
    const row = `SELECT timeout_ms FROM triphase.job WHERE id = $1`
    expect(await bench.schema.database.query(row, [id])).toEqual([
      { timeout_ms: timeout === '16.1s' ? 16_100 : 1 },
    ])
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
