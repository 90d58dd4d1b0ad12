import { describe, expect, test } from 'vitest'
import { finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { cancelJob, settleCancelRequests } from '../../src/store/cancel.ts'
import { stageDueJobs } from '../../src/store/stage.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, claim, insertClaimed, insertJob, insertProcess, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

const REASON = '{"code":"CANCELLED"}'
const FAR = new Date(Date.now() + 3_600_000)

async function pair() {
  return Promise.all([sessions.open(), sessions.open()])
}

function requests(): Promise<unknown[]> {
  return bench.schema.database.query('SELECT job_id FROM triphase.cancel_request')
}

describe('a cancel and a claim', () => {
  test.each([
    ['commits: the job runs, and is asked to end', 'commit', 'requested', 'executing'],
    ['rolls back: the job is cancelled', 'rollback', 'cancelled', 'cancelled'],
  ] as const)('the claim is first and %s', async (_what, end, outcome, state) => {
    const { database } = bench.schema
    const id = await insertJob(database)
    const process = await insertProcess(database)
    const [a, b] = await pair()
    await a.begin()
    expect(await claim(a.database, process)).toHaveLength(1)
    const cancelled = cancelJob(b.database, id, REASON)
    await sessions.waits(b, a)
    await a[end]()
    expect(await cancelled).toBe(outcome)
    expect(await rowsOf(database, id)).toMatchObject([{ state }])
    expect(await requests()).toEqual(outcome === 'requested' ? [{ job_id: id }] : [])
  })

  test.each([
    ['commits: there is nothing to claim', 'commit', 0],
    ['rolls back: the job can be claimed', 'rollback', 1],
  ] as const)('the cancel is first and %s; the claim never waits', async (_what, end, count) => {
    const { database } = bench.schema
    const id = await insertJob(database)
    const process = await insertProcess(database)
    const a = await sessions.open()
    await a.begin()
    expect(await cancelJob(a.database, id, REASON)).toBe('cancelled')
    expect(await claim(database, process)).toEqual([])
    await a[end]()
    expect(await claim(database, process)).toHaveLength(count)
  })
})

describe('a cancel and an ack', () => {
  test.each([
    ['commits: the job is completed', 'commit', 'completed'],
    ['rolls back: the job goes on', 'rollback', 'executing'],
  ] as const)('that finishes and %s; the request waits for nothing', async (_what, end, state) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const a = await sessions.open()
    await a.begin()
    await finishJobs(a.run, [ackOf(job, 'completed')])
    expect(await cancelJob(database, job.id, REASON)).toBe('requested')
    await a[end]()
    await settleCancelRequests(database, REASON)
    expect(await rowsOf(database, job.id)).toMatchObject([{ state }])
    expect(await requests()).toEqual(end === 'commit' ? [] : [{ job_id: job.id }])
  })

  test('that sends the job back to waiting: the request outlives the claim, and is carried out', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const a = await sessions.open()
    await a.begin()
    await rescheduleJobs(a.run, [ackOf(job, 'retryable', { delayMs: 3_600_000 })])
    expect(await cancelJob(database, job.id, REASON)).toBe('requested')
    await a.commit()
    expect(await rowsOf(database, job.id)).toMatchObject([{ state: 'retryable' }])
    await settleCancelRequests(database, REASON)
    expect(await rowsOf(database, job.id)).toMatchObject([{ place: 'history', state: 'cancelled' }])
    expect(await requests()).toEqual([])
  })

  test.each([
    ['commits: the job is gone', 'commit', 'not-found'],
    ['rolls back: the second cancels it', 'rollback', 'cancelled'],
  ] as const)('a cancel is first and %s', async (_what, end, outcome) => {
    const { database } = bench.schema
    const id = await insertJob(database)
    const [a, b] = await pair()
    await a.begin()
    await cancelJob(a.database, id, REASON)
    const second = cancelJob(b.database, id, REASON)
    await sessions.waits(b, a)
    await a[end]()
    expect(await second).toBe(outcome)
    expect(await rowsOf(database, id)).toMatchObject([{ place: 'history', state: 'cancelled' }])
  })
})

describe('a cancel and the stager', () => {
  test('the stager is first: the cancel waits, and cancels what is available now', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { delayMs: 60_000 })
    const [a, b] = await pair()
    await a.begin()
    expect(await stageDueJobs(a.database, 10, FAR)).toHaveLength(1)
    const cancelled = cancelJob(b.database, id, REASON)
    await sessions.waits(b, a)
    await a.commit()
    expect(await cancelled).toBe('cancelled')
    expect(await rowsOf(database, id)).toMatchObject([{ place: 'history', state: 'cancelled' }])
  })

  test('the cancel is first: the stager passes over it', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { delayMs: 60_000 })
    const other = await insertJob(database, { delayMs: 60_000 })
    const a = await sessions.open()
    await a.begin()
    await cancelJob(a.database, id, REASON)
    expect(await stageDueJobs(database, 10, FAR)).toEqual([{ queue: 'queue', count: 1 }])
    await a.commit()
    expect(await rowsOf(database, other)).toMatchObject([{ state: 'available' }])
    expect(await rowsOf(database, id)).toMatchObject([{ place: 'history' }])
  })
})

test('a job that is staged, claimed and handed back all the time is cancelled all the same', async () => {
  const { database } = bench.schema
  const process = await insertProcess(database)
  const [a, b] = await pair()
  for (let round = 0; round < 40; round++) {
    const id = await insertJob(database)
    const shuffle = async () => {
      for (let turn = 0; turn < 6; turn++) {
        const [job] = await claim(a.database, process)
        if (job) await rescheduleJobs(a.run, [ackOf(job, 'available')])
      }
    }
    const [outcome] = await Promise.all([cancelJob(b.database, id, REASON), shuffle()])
    expect(outcome).toMatch(/^(cancelled|requested)$/)
    await settleCancelRequests(database, REASON)
    expect(await rowsOf(database, id)).toMatchObject([{ place: 'history', state: 'cancelled' }])
  }
})
