import type pg from 'pg'
import { expect, test } from 'vitest'
import {
  adviseConnections,
  defineStagedTask,
  defineTask,
  type Engine,
  type TaskConnections,
  unchecked,
} from '../src/index.ts'
import { useEngines } from './support/engines.ts'
import { jobIn } from './support/jobs.ts'
import { eventually } from './support/processes.ts'

const bench = useEngines()

/** A gate that a phase stands at until it is opened. */
function gate(): { reached: Promise<void>; open: () => void; pass: () => Promise<void> } {
  const [reached, opened] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const pass = () => {
    reached.resolve()
    return opened.promise
  }
  return { reached: reached.promise, open: opened.resolve, pass }
}

test('the snapshot tells who holds which connection, and since when', async () => {
  const [inPrepare, inCall, inCommit] = [gate(), gate(), gate()]
  const task = defineStagedTask({
    name: 'describe',
    input: unchecked<unknown>(),
    prepare: inPrepare.pass,
    call: async () => {
      await inCall.pass()
      return 1
    },
    commit: inCommit.pass,
  })
  const engine = bench.engine({
    tasks: [task],
    queues: { default: 1 },
    application: { size: 1 },
    guard: { maxHold: false },
  })
  await engine.start()
  const { id } = await engine.enqueue(task, {})

  await inPrepare.reached
  const { application } = engine.connections()
  expect(application).toMatchObject({ size: 1, open: 1, inUse: 1, waiting: 0 })
  expect(application.oldest).toMatchObject({ jobId: id, task: 'describe', phase: 'prepare' })
  expect(application.oldest?.opened).toMatch(
    /^for prepare of task describe \(defined at .*connections\.test\.ts:\d+/,
  )
  const waits = engine.transaction(async (tx: pg.PoolClient) => tx.query('SELECT 1'))
  await eventually(() => expect(engine.connections().application.waiting).toBe(1))
  inPrepare.open()
  await waits

  await inCall.reached
  await eventually(() => expect(engine.connections().application).toMatchObject({ inUse: 0, oldest: null }))
  inCall.open()

  await inCommit.reached
  expect(engine.connections().application.oldest).toMatchObject({ jobId: id, phase: 'commit' })
  inCommit.open()
  await jobIn(engine, id, 'completed')
  await eventually(() => expect(engine.connections().application.inUse).toBe(0))
})

test('a transaction of the application shows the line that opened it', async () => {
  const engine = bench.engine({ guard: { maxHold: false } })
  await engine.transaction(async () => {
    const { oldest } = engine.connections().application
    expect(oldest).toMatchObject({ jobId: null, task: null, phase: null })
    expect(oldest?.opened).toMatch(/^at .*connections\.test\.ts:\d+/)
  })
})

test('checkouts are summed by pool, task and phase, and kept with the attempt', async () => {
  const task = defineStagedTask({
    name: 'sums',
    queue: 'slow',
    input: unchecked<number>(),
    prepare: ({ tx }) => tx.query('SELECT pg_sleep(0.01)'),
    call: async ({ query }) => {
      await query('SELECT pg_sleep(0.01)')
      return 1
    },
    commit: async ({ tx, input }) => {
      await tx.query('SELECT pg_sleep(0.02)')
      if (input === 13) throw new Error('no luck')
    },
  })
  const engine = bench.engine({ tasks: [task], queues: { slow: 2 } })
  await engine.start()
  const good = await engine.enqueueMany(
    task,
    [1, 2, 3].map((input) => ({ input })),
  )
  const bad = await engine.enqueue(task, 13, { maxAttempts: 1 })
  for (const { id } of good) await jobIn(engine, id, 'completed')
  await jobIn(engine, bad.id, 'discarded')

  const phases = {
    prepare: { checkouts: 1 },
    call: { checkouts: 1 },
    commit: { checkouts: 1 },
  }
  for (const id of [good[0]!.id, bad.id]) {
    const [attempt] = await engine.attempts(id)
    expect(attempt).toMatchObject({ checkouts: 3, phases })
    expect(attempt!.phases!.prepare!.holdMs).toBeGreaterThanOrEqual(9)
    expect(attempt!.phases!.commit!.holdMs).toBeGreaterThanOrEqual(19)
    expect(attempt!.holdMs).toBeGreaterThanOrEqual(39)
    expect(attempt!.longestHoldMs).toBeGreaterThanOrEqual(attempt!.phases!.commit!.holdMs - 0.5)
  }
  const { tasks, application, engine: own } = engine.connections()
  expect(tasks).toMatchObject([{ task: 'sums', queue: 'slow', claims: 4, checkouts: 12 }])
  const [sums] = tasks
  expect(sums!.phases.commit).toMatchObject({ checkouts: 4 })
  expect(sums!.holdMs).toBeGreaterThanOrEqual(4 * 39)
  expect(application.checkouts).toBe(12)
  expect(application.holdMs).toBeCloseTo(sums!.holdMs, -1)
  expect(own.checkouts).toBeGreaterThan(4)

  const [callMs, holdMs] = [sums!.phases.call!.durationMs / 4, sums!.holdMs / 4]
  expect(adviseConnections({ concurrency: 2, callMs, holdMs }).pools.application).toBe(2)
})

test('what history keeps is summed over all processes, by task, queue and phase', async () => {
  const task = defineStagedTask({
    name: 'kept',
    input: unchecked<number>(),
    backoff: { initial: '1ms' },
    prepare: async ({ tx, input, job }) => {
      await tx.query('SELECT pg_sleep(0.01)')
      if (input === 13 && job.attempt === 1) throw new Error('no luck')
    },
    call: async () => 1,
    commit: async () => {},
  })
  const plain = defineTask({ name: 'plain', queue: 'slow', input: unchecked<null>(), run: () => 1 })
  const engines = ['slow', 'fast'].map((queue) =>
    bench.engine({ tasks: [task, plain], queues: { [queue]: 2 }, name: 'ledger' }),
  )
  await Promise.all(engines.map((engine) => engine.start()))
  const [engine] = engines as [Engine<pg.PoolClient>]
  const jobs = [
    ...(await engine.enqueueMany(task, [
      { input: 1, queue: 'slow' },
      { input: 13, queue: 'slow' },
    ])),
    await engine.enqueue(task, 2, { queue: 'fast' }),
    await engine.enqueue(plain, null),
  ]
  for (const { id } of jobs) await jobIn(engine, id, 'completed')

  const sums = await engine.ledger()
  expect(sums).toMatchObject([
    { task: 'kept', queue: 'fast', claims: 1, checkouts: 2, phases: { call: { claims: 1, checkouts: 0 } } },
    {
      task: 'kept',
      queue: 'slow',
      claims: 3,
      checkouts: 5,
      phases: { prepare: { claims: 3 }, call: { claims: 2 }, commit: { claims: 2, checkouts: 2 } },
    },
  ])
  const [, slow] = sums as [TaskConnections, TaskConnections]
  expect(slow.phases.prepare!.holdMs).toBeGreaterThanOrEqual(3 * 9)
  expect(slow.phases.prepare!.longestHoldMs).toBeCloseTo(slow.longestHoldMs, 3)
  expect(slow.durationMs).toBeGreaterThan(slow.holdMs)
  const [own] = engine.connections().tasks
  expect(own).toMatchObject({ task: 'kept', queue: 'slow', claims: 3, checkouts: 5 })
  expect(own!.durationMs).toBeGreaterThan(own!.holdMs)
  expect(slow.waitMs).toBeCloseTo(own!.waitMs, 0)
  expect(await engine.ledger({ last: 0 })).toEqual([])
  await expect(engine.ledger({ last: -1 })).rejects.toMatchObject({ code: 'INVALID_DURATION' })

  const advice = await engine.adviseConnections()
  expect(advice).toMatchObject({ works: true, pools: { application: 2 } })
  expect(advice!.advice[0]).toMatch(/^2 jobs at a time hold/)
  expect(await engine.adviseConnections({ last: 0 })).toBeNull()
})
