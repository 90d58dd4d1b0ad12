import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineTask, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()

const send = defineTask({
  name: 'send',
  input: z.object({ to: z.string(), copies: z.number().int().min(1).optional() }),
  run: ({ input }) => input,
})
const anything = defineTask({ name: 'anything', input: unchecked<unknown>(), run: ({ input }) => input })

test('a job is written with the defaults', async () => {
  const engine = bench.engine()
  const { id, created } = await engine.enqueue(send, { to: 'a' })
  expect(created).toBe(true)
  expect(await engine.job(id)).toMatchObject({
    id,
    task: 'send',
    queue: 'default',
    state: 'available',
    priority: 'normal',
    attempt: 0,
    maxAttempts: 10,
    crashCount: 0,
    input: { to: 'a' },
    result: null,
    error: null,
    tags: [],
    claimedAt: null,
    finishedAt: null,
  })
})

test("the task's options are its jobs' defaults, and each job may differ", async () => {
  const task = defineTask({
    name: 'tuned',
    queue: 'slow',
    priority: 'low',
    maxAttempts: 3,
    maxCrashes: 2,
    timeout: '150s',
    input: unchecked<null>(),
    run: () => null,
  })
  const engine = bench.engine()
  const plain = await engine.enqueue(task, null)
  const tuned = await engine.enqueue(task, null, {
    queue: 'fast',
    priority: 'urgent',
    maxAttempts: 7,
    maxCrashes: 9,
    timeout: '2s',
  })
  const rows = await bench.schema.database.query(
    'SELECT id, queue, priority, max_attempts, max_crashes, timeout_ms FROM triphase.job ORDER BY id',
  )
  expect(rows).toEqual([
    // The task's own timeout is read when the job runs.
    { id: plain.id, queue: 'slow', priority: 3, max_attempts: 3, max_crashes: 2, timeout_ms: null },
    { id: tuned.id, queue: 'fast', priority: 0, max_attempts: 7, max_crashes: 9, timeout_ms: 2_000 },
  ])
})

test('many jobs are written at once and answered in the order given', async () => {
  const engine = bench.engine()
  const enqueued = engine.telemetry.next('job:enqueued')
  const inserted = await engine.enqueueMany(send, [
    { input: { to: 'a' } },
    { input: { to: 'b' }, uniqueKey: 'b' },
    { input: { to: 'c' } },
    { input: { to: 'd' }, uniqueKey: 'a' },
    { input: { to: 'e' }, delay: '1h' },
  ])
  const jobs = await Promise.all(inserted.map(({ id }) => engine.job(id)))
  expect(jobs.map((job) => job?.input)).toEqual(['a', 'b', 'c', 'd', 'e'].map((to) => ({ to })))
  expect(jobs.map((job) => job?.state)).toEqual([...Array(4).fill('available'), 'scheduled'])
  expect((await enqueued).jobIds).toEqual(inserted.map(({ id }) => id))
})

test('telemetry says of each queue what was written', async () => {
  const engine = bench.engine()
  const events: unknown[] = []
  engine.telemetry.on('job:enqueued', (event) => events.push(event))
  const [a, b, c] = (await engine.enqueueMany(send, [
    { input: { to: 'a' }, queue: 'one' },
    { input: { to: 'b' }, queue: 'other' },
    { input: { to: 'c' }, queue: 'one' },
  ])) as { id: string }[]
  expect(events).toEqual([
    { jobIds: [a?.id, c?.id], task: 'send', queue: 'one' },
    { jobIds: [b?.id], task: 'send', queue: 'other' },
  ])
})

test('no jobs at all are no error', async () => {
  expect(await bench.engine().enqueueMany(send, [])).toEqual([])
})

test('thousands are written in the order given', async () => {
  const engine = bench.engine()
  const inserted = await engine.enqueueMany(
    anything,
    Array.from({ length: 3_000 }, (_, input) => ({ input })),
  )
  const rows = await bench.schema.database.query<{ id: string; input: string }>(
    'SELECT id, input FROM triphase.job ORDER BY position',
  )
  expect(rows.map(({ input }) => Number(input))).toEqual(rows.map((_, index) => index))
  expect(rows.map(({ id }) => id)).toEqual(inserted.map(({ id }) => id))
})

describe('a delayed job', () => {
  test.each([
    ['a delay', { delay: '5m' }, 300_000],
    ['a delay in milliseconds', { delay: 1_500 }, 1_500],
    ['a time', { runAt: new Date(Date.now() + 60_000) }, undefined],
  ] as const)('waits for %s', async (_what, options, delayMs) => {
    const engine = bench.engine()
    const { id } = await engine.enqueue(send, { to: 'a' }, options)
    const job = await engine.job(id)
    expect(job?.state).toBe('scheduled')
    if ('runAt' in options) expect(job?.runAt).toEqual(options.runAt)
    else expect(job!.runAt.getTime() - job!.insertedAt.getTime()).toBeCloseTo(delayMs!, -2)
  })

  test.each([
    ['no delay', { delay: 0 }],
    ['a time that is past', { runAt: new Date(Date.now() - 60_000) }],
  ])('%s: it is available at once', async (_what, options) => {
    const engine = bench.engine()
    const { id } = await engine.enqueue(send, { to: 'a' }, options)
    expect(await engine.job(id)).toMatchObject({ state: 'available' })
  })

  test('runs when it is due, and not before', async () => {
    const engine = bench.engine({ tasks: [send], queues: { default: 2 }, heartbeat: '20s', deadAfter: '60s' })
    await engine.start()
    const [later, now] = await engine.enqueueMany(send, [
      { input: { to: 'later' }, delay: '400ms' },
      { input: { to: 'now' } },
    ])
    const first = await jobIn(engine, now!.id, 'completed')
    const second = await jobIn(engine, later!.id, 'completed')
    expect(first.finishedAt!.getTime()).toBeLessThan(second.claimedAt!.getTime())
    expect(second.claimedAt!.getTime()).toBeGreaterThanOrEqual(second.runAt.getTime())
    expect(second.claimedAt!.getTime() - second.runAt.getTime()).toBeLessThan(2_000)
  })
})

test('urgent jobs go first, and equal ones in the order in which they came', async () => {
  const engine = bench.engine({ tasks: [send], queues: { default: 1 } })
  const order: string[] = []
  const done = Promise.withResolvers<void>()
  engine.telemetry.on('job:completed', ({ result }) => {
    order.push((result as { to: string }).to)
    if (order.length === 6) done.resolve()
  })
  await engine.enqueueMany(send, [
    { input: { to: 'low' }, priority: 'low' },
    { input: { to: 'normal 1' } },
    { input: { to: 'high' }, priority: 'high' },
    { input: { to: 'normal 2' }, priority: 'normal' },
    { input: { to: 'urgent 1' }, priority: 'urgent' },
    { input: { to: 'urgent 2' }, priority: 'urgent' },
  ])
  await engine.start()
  await done.promise
  expect(order).toEqual(['urgent 1', 'urgent 2', 'high', 'normal 1', 'normal 2', 'low'])
})

describe('kept as given', () => {
  test('tags, whatever is in them', async () => {
    const tags = [
      'plain',
      'with, comma',
      '{braces}',
      '"quoted"',
      'back\\slash',
      'NULL',
      'new\nline',
      '😀',
      ' ',
    ]
    const engine = bench.engine()
    const jobs = [{ input: null, tags }, { input: null }, { input: null, tags: ['x'], uniqueKey: 'a' }]
    const inserted = await engine.enqueueMany(anything, jobs)
    const found = await Promise.all(inserted.map(({ id }) => engine.job(id)))
    expect(found.map((job) => job?.tags)).toEqual([tags, [], ['x']])
  })

  test.each([
    ['\\u0000', 'a\u0000b'],
    ['a lone high surrogate', 'x\ud83dy'],
    ['a lone low surrogate', '\ude00'],
    ['text that looks like an escape', '\\u0000 \\ud800'],
    ['quotes and backslashes', `"'\\{}`],
    ['nothing', null],
    ['a number', 1.5e-7],
    ['a list', [1, 'two', [3]]],
  ])('an input with %s, to the handler and back', async (_what, value) => {
    const engine = bench.engine({ tasks: [anything], queues: { default: 1 } })
    const { id } = await engine.enqueue(anything, { value })
    await engine.start()
    const job = await jobIn(engine, id, 'completed')
    expect(job.input).toEqual({ value })
    expect(job.result).toEqual({ value })
  })

  test('no input is null', async () => {
    const engine = bench.engine()
    const { id } = await engine.enqueue(anything, undefined)
    expect((await engine.job(id))?.input).toBeNull()
  })
})

test('undefined options are the defaults', async () => {
  const engine = bench.engine()
  const options = { delay: undefined, priority: undefined, uniqueKey: undefined, tags: undefined } as never
  const { id } = await engine.enqueue(send, { to: 'a' }, options)
  expect(await engine.job(id)).toMatchObject({ state: 'available', priority: 'normal', tags: [] })
})
