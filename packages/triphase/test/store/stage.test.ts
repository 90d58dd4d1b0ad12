import { expect, test } from 'vitest'
import { nextDueMs, stageDueJobs } from '../../src/store/stage.ts'
import { useEngines } from '../support/engines.ts'
import { claim, insertJob, insertProcess, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()

test('makes due jobs available, in the order in which they were due, and leaves the others', async () => {
  const { database } = bench.schema
  const later = await insertJob(database, { delayMs: 120_000 })
  const sooner = await insertJob(database, { delayMs: 60_000 })
  const much = await insertJob(database, { delayMs: 3_600_000 })
  expect(await stageDueJobs(database, 10)).toEqual([])
  expect(await stageDueJobs(database, 1, new Date(Date.now() + 600_000))).toEqual([
    { queue: 'queue', count: 1 },
  ])
  expect(await rowsOf(database, sooner)).toMatchObject([{ state: 'available' }])
  expect(await rowsOf(database, later)).toMatchObject([{ state: 'scheduled' }])
  await stageDueJobs(database, 10, new Date(Date.now() + 600_000))
  const order = await claim(database, await insertProcess(database), 10)
  expect(order.map(({ id }) => id)).toEqual([sooner, later])
  expect(await rowsOf(database, much)).toMatchObject([{ state: 'scheduled' }])
})

test('counts by queue', async () => {
  const { database } = bench.schema
  for (const queue of ['a', 'b', 'a']) await insertJob(database, { queue, delayMs: 1_000 })
  const staged = await stageDueJobs(database, 10, new Date(Date.now() + 600_000))
  expect(staged.toSorted((x, y) => (x.queue < y.queue ? -1 : 1))).toEqual([
    { queue: 'a', count: 2 },
    { queue: 'b', count: 1 },
  ])
})

test('knows when the next job is due', async () => {
  const { database } = bench.schema
  expect(await nextDueMs(database)).toBeNull()
  await insertJob(database, { delayMs: 60_000 })
  await insertJob(database)
  const inMs = await nextDueMs(database)
  expect(inMs).toBeGreaterThan(50_000)
  expect(inMs).toBeLessThanOrEqual(60_000)
  await insertJob(database, { delayMs: 1_000 })
  expect(await nextDueMs(database)).toBeLessThanOrEqual(1_000)
})
