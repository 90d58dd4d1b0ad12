import { describe, expect, test } from 'vitest'
import { finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { claimJobs } from '../../src/store/claim.ts'
import { insertJobs, onEnginePool } from '../../src/store/insert.ts'
import { rescueProcess } from '../../src/store/rescue.ts'
import { stageDueJobs } from '../../src/store/stage.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, claim, insertJob, insertMany, insertProcess, newJob, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

const FROM_THE_START = [0, 0, 0, 0]
const ids = (jobs: readonly { id: string }[]) => jobs.map(({ id }) => id)

/** A job that took so many processes down with it. */
async function insertCrashed(crashes: number, maxCrashes = 9): Promise<string> {
  const { database } = bench.schema
  const id = await insertJob(database, { maxCrashes })
  await database.query('UPDATE triphase.job SET crash_count = $2 WHERE id = $1', [id, crashes])
  return id
}

describe('order', () => {
  test('by priority, then by the order in which jobs became available', async () => {
    const { database } = bench.schema
    const priorities = [3, 2, 0, 1, 2, 0, 3, 1]
    const jobs = priorities.map((priority) => newJob({ priority }))
    const inserted = ids(await insertJobs(onEnginePool(database), jobs))
    const claimed = ids(await claim(database, await insertProcess(database), 100))
    expect(claimed).toEqual([2, 5, 3, 7, 1, 4, 0, 6].map((index) => inserted[index]))
  })

  test('is kept where the limit ends in the middle of a priority', async () => {
    const { database } = bench.schema
    const jobs = [2, 0, 2, 0, 2].map((priority) => newJob({ priority }))
    const inserted = ids(await insertJobs(onEnginePool(database), jobs))
    const process = await insertProcess(database)
    expect(ids(await claim(database, process, 3))).toEqual([1, 3, 0].map((index) => inserted[index]))
    expect(ids(await claim(database, process, 3))).toEqual([2, 4].map((index) => inserted[index]))
    expect(await claim(database, process, 3)).toEqual([])
  })

  test('a retried job stands at the end of its queue', async () => {
    const { database } = bench.schema
    const [first, second] = await insertMany(database, 3)
    const process = await insertProcess(database)
    const [job] = await claim(database, process)
    expect(job!.id).toBe(first)
    await rescheduleJobs(onEnginePool(database), [ackOf(job!, 'retryable')])
    await stageDueJobs(database, 10)
    const order = ids(await claim(database, process, 10))
    expect(order[0]).toBe(second)
    expect(order.at(-1)).toBe(first)
  })

  test('so does one that was handed back', async () => {
    const { database } = bench.schema
    const [first] = await insertMany(database, 3)
    const process = await insertProcess(database)
    const [job] = await claim(database, process)
    await rescheduleJobs(onEnginePool(database), [ackOf(job!, 'available', { countsAsAttempt: false })])
    expect(ids(await claim(database, process, 10)).at(-1)).toBe(first)
  })
})

test('takes what the claim needs to know, and marks the row', async () => {
  const { database } = bench.schema
  const id = await insertJob(database, {
    input: '{"a":"\\u0000"}',
    tags: ['x', 'y'],
    timeoutMs: 7,
    maxAttempts: 4,
  })
  const process = await insertProcess(database)
  const [job] = await claim(database, process)
  expect(job).toMatchObject({
    id,
    claimNo: 1,
    attempt: 1,
    maxAttempts: 4,
    crashCount: 0,
    timeoutMs: 7,
    queue: 'queue',
    task: 'task',
    input: { a: '\u0000' },
    tags: ['x', 'y'],
  })
  expect(job!.claimedAt.getTime()).toBeGreaterThanOrEqual(job!.insertedAt.getTime())
  expect(await rowsOf(database, id)).toMatchObject([{ state: 'executing', processId: process, claimNo: 1 }])
})

test('takes only available jobs of its queue', async () => {
  const { database } = bench.schema
  await insertJob(database, { queue: 'other' })
  await insertJob(database, { delayMs: 60_000 })
  const process = await insertProcess(database)
  await insertJob(database)
  expect(await claim(database, process, 10)).toHaveLength(1)
  expect(await claim(database, process, 10)).toEqual([])
})

test('of two claimers at the same time none gets a job of the other, and together they get all', async () => {
  const { database } = bench.schema
  const claimers = await Promise.all(
    Array.from({ length: 2 }, async () => ({
      session: await sessions.open(),
      process: await insertProcess(database),
      got: [] as string[],
    })),
  )
  for (let round = 0; round < 60; round++) {
    const inserted = await insertMany(database, 40)
    await Promise.all(
      claimers.map(async (claimer) => {
        for (let limit = 1; limit <= 12; limit += 3) {
          claimer.got.push(...ids(await claim(claimer.session.database, claimer.process, limit)))
        }
      }),
    )
    const rest = await claim(database, claimers[0]!.process, 100)
    const got = [...claimers.flatMap((claimer) => claimer.got.splice(0)), ...ids(rest)]
    expect(got.toSorted()).toEqual(inserted.toSorted())
    await finishJobs(
      onEnginePool(database),
      got.map((id) => ackOf({ id, claimNo: 1 }, 'completed')),
    )
  }
})

describe('suspects (jobs that were running in two crashes)', () => {
  test('are claimed one at a time, before the others', async () => {
    const { database } = bench.schema
    const ordinary = await insertMany(database, 2)
    const suspects = [await insertCrashed(2), await insertCrashed(5)]
    const innocent = await insertCrashed(1)
    const process = await insertProcess(database)
    const take = async (most: 0 | 1, limit: number) => {
      const options = { queue: 'queue', processId: process, limit, suspects: most, marks: FROM_THE_START }
      return ids((await claimJobs(database, options)).jobs)
    }
    expect(await take(0, 1)).toEqual([ordinary[0]])
    expect((await take(1, 10)).toSorted()).toEqual([ordinary[1], suspects[0], innocent].toSorted())
    expect(await take(0, 10)).toEqual([])
    expect(await take(1, 10)).toEqual([suspects[1]])
    expect(await take(1, 10)).toEqual([])
  })

  test('count against the limit', async () => {
    const { database } = bench.schema
    await insertMany(database, 5)
    await insertCrashed(2)
    const jobs = await claim(database, await insertProcess(database), 3)
    expect(jobs).toHaveLength(3)
    expect(jobs.filter(({ crashCount }) => crashCount >= 2)).toHaveLength(1)
  })

  test('become suspects by two rescues', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { maxCrashes: 5 })
    for (const crashes of [1, 2]) {
      const process = await insertProcess(database)
      await claim(database, process)
      await rescueProcess(database, { id: process, beat: '0' } as never, '{}')
      expect(await rowsOf(database, id)).toMatchObject([
        { state: 'available', crashCount: crashes, attempt: 0 },
      ])
    }
    const options = {
      queue: 'queue',
      processId: await insertProcess(database),
      limit: 5,
      marks: FROM_THE_START,
    }
    expect((await claimJobs(database, { ...options, suspects: 0 })).jobs).toEqual([])
    expect(ids((await claimJobs(database, { ...options, suspects: 1 })).jobs)).toEqual([id])
  })
})

test('a row that somebody else has locked is passed over, not waited for', async () => {
  const { database } = bench.schema
  const [locked, free] = await insertMany(database, 2)
  const other = await sessions.open()
  await other.begin()
  await other.database.query('SELECT FROM triphase.job WHERE id = $1 FOR UPDATE', [locked])
  const process = await insertProcess(database)
  expect(ids(await claim(database, process, 10))).toEqual([free])
  await other.rollback()
  expect(ids(await claim(database, process, 10))).toEqual([locked])
})
