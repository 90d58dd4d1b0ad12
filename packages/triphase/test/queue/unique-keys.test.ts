import { describe, expect, test } from 'vitest'
import { cancel, defineTask, discard, Permanent, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { Gate, jobIn } from '../support/jobs.ts'

const bench = useEngines()

type End = 'complete' | 'cancel' | 'discard' | 'throw'
const end = defineTask({
  name: 'end',
  input: unchecked<End>(),
  run: ({ input }) => {
    if (input === 'throw') throw new Permanent('no use')
    return { complete: 'done', cancel: cancel(), discard: discard() }[input]
  },
})

test('while a live job holds the key, no other is written', async () => {
  const engine = bench.engine()
  const first = await engine.enqueue(end, 'complete', { uniqueKey: 'k' })
  const second = await engine.enqueue(end, 'complete', { uniqueKey: 'k', delay: '1h' })
  const other = await engine.enqueue(end, 'complete', { uniqueKey: 'K' })
  expect(second).toEqual({ id: first.id, created: false })
  expect(other).toMatchObject({ created: true })
  expect(await engine.counts()).toEqual([{ queue: 'default', state: 'available', count: 2 }])
})

test('a scheduled job and a running one hold it too', async () => {
  const gate = new Gate()
  const wait = defineTask({ name: 'wait', input: unchecked<null>(), run: () => gate.pass() })
  const engine = bench.engine({ tasks: [wait], queues: { default: 1 } })
  const { id } = await engine.enqueue(wait, null, { uniqueKey: 'k', delay: '50ms' })
  expect(await engine.enqueue(wait, null, { uniqueKey: 'k' })).toEqual({ id, created: false })
  await engine.start()
  await gate.reached
  expect(await engine.enqueue(wait, null, { uniqueKey: 'k' })).toEqual({ id, created: false })
  gate.open()
  await jobIn(engine, id, 'completed')
})

test('of several in one call the first is written', async () => {
  const engine = bench.engine()
  const enqueued = engine.telemetry.next('job:enqueued')
  const inserted = await engine.enqueueMany(end, [
    { input: 'complete', uniqueKey: 'b' },
    { input: 'cancel', uniqueKey: 'a' },
    { input: 'discard', uniqueKey: 'b' },
    { input: 'throw' },
    { input: 'throw', uniqueKey: 'a' },
  ])
  expect(inserted.map(({ created }) => created)).toEqual([true, true, false, true, false])
  expect(inserted[2]?.id).toBe(inserted[0]?.id)
  expect(inserted[4]?.id).toBe(inserted[1]?.id)
  expect((await engine.job(inserted[0]!.id))?.input).toBe('complete')
  expect((await enqueued).jobIds).toEqual([0, 1, 3].map((index) => inserted[index]!.id))
})

test('where a key cannot be had, the jobs without one are not written either', async () => {
  const { database } = bench.schema
  const engine = bench.engine()
  await database.query(`ALTER TABLE triphase.job_unique ADD CONSTRAINT refused CHECK (key <> 'refused')`)
  try {
    const jobs = [{ input: 'throw' as const }, { input: 'throw' as const, uniqueKey: 'refused' }]
    await expect(engine.enqueueMany(end, jobs)).rejects.toMatchObject({ code: '23514' })
    expect(await engine.counts()).toEqual([])
  } finally {
    await database.query('ALTER TABLE triphase.job_unique DROP CONSTRAINT refused')
  }
})

describe('the key is free again', () => {
  test.each([
    ['complete', 'completed'],
    ['cancel', 'cancelled'],
    ['discard', 'discarded'],
    ['throw', 'discarded'],
  ] as const)('after %s', async (how, state) => {
    const engine = bench.engine({ tasks: [end], queues: { default: 1 } })
    await engine.start()
    const first = await engine.enqueue(end, how, { uniqueKey: 'k' })
    await jobIn(engine, first.id, state)
    const second = await engine.enqueue(end, how, { uniqueKey: 'k' })
    expect(second).toMatchObject({ created: true })
    expect(second.id).not.toBe(first.id)
  })

  test('after a waiting job was cancelled', async () => {
    const engine = bench.engine()
    const { id } = await engine.enqueue(end, 'complete', { uniqueKey: 'k', delay: '1h' })
    expect(await engine.cancel(id)).toBe('cancelled')
    expect(await engine.enqueue(end, 'complete', { uniqueKey: 'k' })).toMatchObject({ created: true })
  })

  test('not after a failure that is tried again', async () => {
    const fail = defineTask({
      name: 'fail',
      input: unchecked<null>(),
      run: () => Promise.reject(new Error('not yet')),
    })
    const engine = bench.engine({ tasks: [fail], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(fail, null, { uniqueKey: 'k' })
    await jobIn(engine, id, 'retryable')
    expect(await engine.enqueue(fail, null, { uniqueKey: 'k' })).toEqual({ id, created: false })
  })
})

describe('uniqueFor', () => {
  test('keeps the key after the job has finished, until its time is over', async () => {
    const engine = bench.engine({ tasks: [end], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(end, 'complete', { uniqueKey: 'k', uniqueFor: '1h' })
    await jobIn(engine, id, 'completed')
    expect(await engine.enqueue(end, 'complete', { uniqueKey: 'k' })).toEqual({ id, created: false })
    await bench.schema.database.query(
      `UPDATE triphase.job_unique SET expires_at = clock_timestamp() - interval '1 second'`,
    )
    expect(await engine.enqueue(end, 'complete', { uniqueKey: 'k' })).toMatchObject({ created: true })
  })

  test('over before the job has finished, frees nothing: the live job holds the key', async () => {
    const engine = bench.engine({ tasks: [end], queues: { default: 1 } })
    const { id } = await engine.enqueue(end, 'complete', { uniqueKey: 'k', uniqueFor: '1ms' })
    const { database } = bench.schema
    await expect
      .poll(() => database.query('SELECT FROM triphase.job_unique WHERE expires_at < clock_timestamp()'))
      .toHaveLength(1)
    expect(await engine.enqueue(end, 'complete', { uniqueKey: 'k' })).toEqual({ id, created: false })
    await engine.start()
    await jobIn(engine, id, 'completed')
    expect(await database.query('SELECT FROM triphase.job_unique')).toEqual([])
  })

  test('a later job with the key brings its own time', async () => {
    const engine = bench.engine()
    const first = await engine.enqueue(end, 'complete', { uniqueKey: 'k', uniqueFor: '1ms' })
    await engine.cancel(first.id)
    await expect
      .poll(() => engine.enqueue(end, 'complete', { uniqueKey: 'k', uniqueFor: '1h' }))
      .toMatchObject({ created: true })
    const [row] = await bench.schema.database.query<{ hours: number }>(
      'SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 / 3600 AS hours FROM triphase.job_unique',
    )
    expect(row!.hours).toBeCloseTo(1, 1)
  })
})

test('a finisher frees only its own key', async () => {
  const gate = new Gate()
  const wait = defineTask({ name: 'wait', input: unchecked<null>(), run: () => gate.pass() })
  const engine = bench.engine({ tasks: [wait], queues: { default: 1 } })
  await engine.start()
  const { id } = await engine.enqueue(wait, null, { uniqueKey: 'k' })
  await gate.reached
  // Somebody else's since: as if the key had been taken over.
  await bench.schema.database.query('UPDATE triphase.job_unique SET job_id = 0')
  gate.open()
  await jobIn(engine, id, 'completed')
  expect(await bench.schema.database.query('SELECT job_id FROM triphase.job_unique')).toEqual([
    { job_id: '0' },
  ])
})
