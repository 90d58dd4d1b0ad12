import { describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { RunningClaim } from '../../src/queue/claims.ts'
import { Producer } from '../../src/queue/producer.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()

describe('what was claimed ahead of the free slots', () => {
  test.each([
    ['paused', { paused: true }, 'pauseQueue', 'resumeQueue'],
    ['given a concurrency of 0', { concurrency: 0 }, 'close', 'open'],
  ] as const)('goes back when the queue is %s', async (_how, change, close, open) => {
    const task = defineTask({ name: 'quick', input: unchecked<number>(), run: ({ input }) => input })
    const worker = bench.engine({ tasks: [task], queues: { default: 5 }, heartbeat: '30s', deadAfter: '90s' })
    const control = {
      pauseQueue: () => worker.pauseQueue('default'),
      resumeQueue: () => worker.resumeQueue('default'),
      close: () => worker.setQueueConcurrency('default', 0),
      open: () => worker.setQueueConcurrency('default', null),
    }
    const completed: unknown[] = []
    const enough = Promise.withResolvers<void>()
    worker.telemetry.on('job:completed', ({ result, attempt }) => {
      expect(attempt).toBe(1)
      if (completed.push(result) === 500) enough.resolve()
    })
    const inputs = Array.from({ length: 5_000 }, (_, input) => ({ input }))
    await worker.enqueueMany(task, inputs)
    await worker.start()
    await enough.promise
    await changed(worker, change, control[close])
    await eventually(async () => (await worker.counts()).every(({ state }) => state === 'available'))
    expect(completed.length).toBeLessThan(5_000)
    await changed(worker, { paused: false, concurrency: 5 }, control[open])
    await eventually(() => completed.length === 5_000)
    expect(new Set(completed).size).toBe(5_000)
  })
})

test('jobs that one process has claimed ahead of slow ones run in another that has slots', async () => {
  const release = Promise.withResolvers<void>()
  const task = defineTask({
    name: 'slow-after-quick',
    input: unchecked<{ slow: boolean }>(),
    run: async ({ input }) => {
      if (input.slow) await release.promise
    },
  })
  const first = bench.engine({ tasks: [task], queues: { default: 2 } })
  await first.enqueueMany(
    task,
    Array.from({ length: 2_000 }, () => ({ input: { slow: false } })),
  )
  const slow = await first.enqueueMany(
    task,
    Array.from({ length: 12 }, () => ({ input: { slow: true } })),
  )
  await first.start()
  const executing = async () =>
    (await Promise.all(slow.map(({ id }) => first.job(id)))).map((job) => job?.state)
  await eventually(async () => (await first.counts()).reduce((sum, { count }) => sum + count, 0) === 12)
  await eventually(async () => (await executing()).filter((state) => state === 'executing').length === 2)
  const second = bench.engine({ tasks: [task], queues: { default: 20 } })
  const started: string[] = []
  second.telemetry.on('job:started', ({ jobId }) => started.push(jobId))
  await second.start()
  await eventually(() => started.length === 10)
  release.resolve()
  await eventually(async () => (await executing()).every((state) => state === 'completed'))
  expect((await Promise.all(slow.map(({ id }) => first.job(id)))).map((job) => job?.attempt)).toEqual(
    Array(12).fill(1),
  )
})

/** Resolves once the engine has taken over what `act` has set. */
async function changed(worker: ReturnType<typeof bench.engine>, to: object, act: () => Promise<void>) {
  const change = worker.telemetry.next('queue:changed')
  await act()
  expect(await change).toMatchObject(to)
}

function claimOf(id: number): RunningClaim {
  const times = { insertedAt: new Date(), claimedAt: new Date() }
  const counts = { claimNo: 1, attempt: 1, maxAttempts: 1, crashCount: 0, timeoutMs: null }
  const what = { queue: 'queue', task: 'task', input: null, tags: [], traceparent: null }
  return new RunningClaim({ id: `${id}`, ...times, ...counts, ...what })
}

/** A producer whose first 100 jobs end at once, so that it claims ahead, and whose next ones never do. */
async function aheadOf(): Promise<{ producer: Producer; started: string[]; handedBack: string[] }> {
  const started: string[] = []
  const handedBack: string[] = []
  const left = Array.from({ length: 140 }, (_, id) => claimOf(id))
  const producer = new Producer({
    queue: 'queue',
    concurrency: 2,
    claim: async (limit) => left.splice(0, limit),
    run: async ({ job }) => {
      if (started.push(job.id) > 100) await new Promise(() => {})
    },
    handBack: (claims) => handedBack.push(...claims.map(({ job }) => job.id)),
    ready: async () => {},
    onClaimFailed: () => {},
  })
  producer.start()
  await eventually(() => started.length === 102 && left.length === 0)
  return { producer, started, handedBack }
}

describe('a producer that waits with claimed jobs', () => {
  const REST = Array.from({ length: 38 }, (_, n) => `${n + 102}`)

  test.each([
    ['is paused', { paused: true, concurrency: null }],
    ['has no slots any more', { paused: false, concurrency: 0 }],
  ])('hands them back when it %s', async (_when, settings) => {
    const { producer, started, handedBack } = await aheadOf()
    expect(producer.apply(settings)).toBe(true)
    expect(handedBack).toEqual(REST)
    expect(producer.apply({ paused: false, concurrency: 50 })).toBe(true)
    expect(started).toHaveLength(102)
  })

  test('hands them back when it stops', async () => {
    const { producer, handedBack } = await aheadOf()
    await producer.stop()
    expect(handedBack).toEqual(REST)
  })

  test('hands them back when no slot becomes free for a second', async () => {
    const { producer, handedBack } = await aheadOf()
    await eventually(() => handedBack.length > 0)
    expect(handedBack).toEqual(REST)
    await producer.stop()
  })

  test('starts them, in their order, when it gets more slots', async () => {
    const { producer, started, handedBack } = await aheadOf()
    producer.apply({ paused: false, concurrency: 7 })
    expect(started.slice(102)).toEqual(REST.slice(0, 5))
    expect(handedBack).toEqual([])
  })
})
