import { describe, expect, test } from 'vitest'
import { ackedClaims, finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { storeAnswer } from '../../src/store/answer.ts'
import { onEnginePool } from '../../src/store/insert.ts'
import { findJob, jobAttempts } from '../../src/store/inspect.ts'
import { useEngines } from '../support/engines.ts'
import {
  ackOf,
  claim,
  insertClaimed,
  insertJob,
  insertMany,
  insertProcess,
  rowsOf,
} from '../support/store-jobs.ts'

const bench = useEngines()
const ATTEMPT = {
  outcome: 'completed',
  checkouts: 3,
  waitMs: 1.5,
  holdMs: 20,
  longestHoldMs: 12,
  phases: '{"call":9}',
} as const

const run = (text: string, values: readonly unknown[]) => onEnginePool(bench.schema.database)(text, values)
const steps = async (jobId: string) =>
  (
    await bench.schema.database.query<{ step: string }>(
      'SELECT step FROM triphase.answer WHERE job_id = $1 ORDER BY step',
      [jobId],
    )
  ).map(({ step }) => step)

test('a finished job is in history with everything that the row had, and only there', async () => {
  const { database } = bench.schema
  const job = await insertClaimed(database, { input: '{"n":1}', tags: ['t'], timeoutMs: 5, priority: 1 })
  expect(await finishJobs(run, [ackOf(job, 'completed', { result: '{"m":2}', attempt: ATTEMPT })])).toEqual(
    new Set([job.id]),
  )
  expect(await rowsOf(database, job.id)).toMatchObject([
    { place: 'history', state: 'completed', claimNo: 1, attempt: 1 },
  ])
  expect(await findJob(database, job.id)).toMatchObject({
    input: { n: 1 },
    result: { m: 2 },
    tags: ['t'],
    priority: 'high',
    claimedAt: job.claimedAt,
    insertedAt: job.insertedAt,
    finishedAt: expect.any(Date),
  })
  expect(await jobAttempts(database, job.id)).toMatchObject([
    {
      claimNo: 1,
      attempt: 1,
      outcome: 'completed',
      checkouts: 3,
      waitMs: 1.5,
      holdMs: 20,
      longestHoldMs: 12,
      phases: { call: 9 },
    },
  ])
})

test('many of all kinds in one statement, in any order', async () => {
  const { database } = bench.schema
  await insertMany(database, 30)
  const jobs = await claim(database, await insertProcess(database), 30)
  const states = ['completed', 'cancelled', 'discarded'] as const
  const acks = jobs.map((job, n) => ackOf(job, states[n % 3]!, { result: n % 3 ? null : `${n}` }))
  expect((await finishJobs(run, acks.toReversed())).size).toBe(30)
  for (const [n, job] of jobs.entries()) {
    expect(await findJob(database, job.id)).toMatchObject({ state: states[n % 3], result: n % 3 ? null : n })
  }
})

describe('back to waiting', () => {
  test('an attempt that is given back does not count, and never falls below zero', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    await rescheduleJobs(run, [ackOf(job, 'scheduled', { delayMs: 1e6, countsAsAttempt: false })])
    expect(await rowsOf(database, job.id)).toMatchObject([
      { state: 'scheduled', attempt: 0, claimNo: 1, processId: null },
    ])
  })

  test('each has its own delay, state and attempt', async () => {
    const { database } = bench.schema
    await insertMany(database, 3)
    const [a, b, c] = await claim(database, await insertProcess(database), 3)
    const acks = [
      ackOf(c!, 'available', { countsAsAttempt: false }),
      ackOf(a!, 'retryable', {
        delayMs: 60_000,
        attempt: { ...ATTEMPT, outcome: 'retried' },
        error: '{"name":"E"}',
      }),
      ackOf(b!, 'scheduled', { delayMs: 3_600_000, countsAsAttempt: false }),
    ]
    expect((await rescheduleJobs(run, acks)).size).toBe(3)
    expect(await rowsOf(database, a!.id)).toMatchObject([{ state: 'retryable', attempt: 1 }])
    expect(await rowsOf(database, b!.id)).toMatchObject([{ state: 'scheduled', attempt: 0 }])
    expect(await rowsOf(database, c!.id)).toMatchObject([{ state: 'available', attempt: 0 }])
    const dueIn = async (id: string) => (await findJob(database, id))!.runAt.getTime() - Date.now()
    expect(await dueIn(a!.id)).toBeCloseTo(60_000, -4)
    expect(await dueIn(b!.id)).toBeCloseTo(3_600_000, -4)
    expect(await jobAttempts(database, a!.id)).toMatchObject([{ outcome: 'retried', error: { name: 'E' } }])
    expect(await jobAttempts(database, b!.id)).toEqual([])
  })

  test.each<[string, string[] | null, string[]]>([
    ['none', null, ['b\nc', 'call', 'quo"te\\', 'with, comma']],
    ['all', [], []],
    ['those named', ['call', 'quo"te\\', 'b\nc', 'unknown'], ['with, comma']],
  ])('drops stored answers: %s', async (_what, dropAnswers, left) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    for (const step of ['call', 'with, comma', 'quo"te\\', 'b\nc']) {
      await storeAnswer(database, { jobId: job.id, claimNo: 1, step, json: '1' })
    }
    await rescheduleJobs(run, [ackOf(job, 'retryable', { dropAnswers })])
    expect(await steps(job.id)).toEqual(left)
  })
})

describe('answers', () => {
  test.each([
    ['completed', ATTEMPT, []],
    ['discarded', { ...ATTEMPT, outcome: 'discarded' as const }, ['call']],
  ] as const)('of a job that is %s', async (state, attempt, left) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    await storeAnswer(database, { jobId: job.id, claimNo: 1, step: 'call', json: '1' })
    await finishJobs(run, [ackOf(job, state, { attempt })])
    expect(await steps(job.id)).toEqual(left)
  })
})

describe('ackedClaims', () => {
  test.each([
    ['finished', 'completed', {}],
    ['waiting again', 'retryable', { delayMs: 1e6 }],
  ] as const)('tells an ack that was written: %s', async (_what, state, details) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const other = await insertClaimed(database)
    await (state === 'completed' ? finishJobs : rescheduleJobs)(run, [ackOf(job, state, details)])
    const claims = [
      { jobId: job.id, claimNo: 1 },
      { jobId: job.id, claimNo: 2 },
      { jobId: other.id, claimNo: 1 },
      { jobId: '999999999', claimNo: 1 },
    ]
    expect(await ackedClaims(database, claims.slice(0, 1))).toEqual(new Set([job.id]))
    expect(await ackedClaims(database, claims.slice(1))).toEqual(new Set())
  })

  test.each([
    ['retried', true],
    ['crashed', false],
  ] as const)('knows of a claim that was %s, and after which came another', async (outcome, known) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    await rescheduleJobs(run, [ackOf(job, 'available', { attempt: { ...ATTEMPT, outcome: 'retried' } })])
    await database.query(`UPDATE triphase.job_attempt SET outcome = $2 WHERE job_id = $1`, [job.id, outcome])
    await claim(database, await insertProcess(database), 1)
    const claims = [1, 2].map((claimNo) => ({ jobId: job.id, claimNo }))
    expect(await ackedClaims(database, claims)).toEqual(new Set(known ? [job.id] : []))
    expect(await ackedClaims(database, claims.slice(1))).toEqual(new Set())
  })
})

test('a job that is not executing is not acked, whatever its claim number', async () => {
  const { database } = bench.schema
  const id = await insertJob(database)
  for (const write of [finishJobs, rescheduleJobs]) {
    const state = write === finishJobs ? 'completed' : 'retryable'
    expect(await write(run, [ackOf({ id, claimNo: 0 }, state)])).toEqual(new Set())
  }
  expect(await rowsOf(database, id)).toMatchObject([{ place: 'job', state: 'available', claimNo: 0 }])
})

test('large results go in several statements, small ones in one', async () => {
  const { database } = bench.schema
  const ids = await insertMany(database, 6)
  const jobs = await claim(database, await insertProcess(database), 6)
  const sent: number[] = []
  const counting = (text: string, values: readonly unknown[]) => {
    sent.push((values[0] as string[]).length)
    return run(text, values)
  }
  const large = JSON.stringify('x'.repeat(3_000_000))
  const results = ['1', large, '2', large, large, '3']
  const acks = jobs.map((job, index) => ackOf(job, 'completed', { result: results[index]! }))
  expect(await finishJobs(counting, acks)).toEqual(new Set(ids))
  expect(sent).toEqual([3, 1, 2])
  for (const id of ids) expect(await rowsOf(database, id)).toMatchObject([{ place: 'history' }])
})

describe('an ack of an earlier claim that comes in one statement with that of a later one', () => {
  const later = `UPDATE triphase.job SET claim_no = 2 WHERE id = $1`

  test.each(['first', 'last'])('does nothing: it is the %s of them', async (place) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    await database.query(later, [job.id])
    const stale = ackOf(job, 'discarded', { error: '"stale"', attempt: { ...ATTEMPT, outcome: 'discarded' } })
    const right = ackOf({ ...job, claimNo: 2 }, 'completed', { result: '"right"', attempt: ATTEMPT })
    await finishJobs(run, place === 'first' ? [stale, right] : [right, stale])
    expect(await rowsOf(database, job.id)).toMatchObject([{ place: 'history', state: 'completed' }])
    expect(await findJob(database, job.id)).toMatchObject({ result: 'right', error: null })
    expect(await jobAttempts(database, job.id)).toMatchObject([{ outcome: 'completed', claimNo: 2 }])
  })

  test.each(['first', 'last'])('sends nothing back: it is the %s of them', async (place) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    await database.query(later, [job.id])
    await storeAnswer(database, { jobId: job.id, claimNo: 1, step: 'call', json: '1' })
    const attempt = { ...ATTEMPT, outcome: 'retried' as const }
    const stale = ackOf(job, 'retryable', { delayMs: 1e6, attempt, dropAnswers: [] })
    const right = ackOf({ ...job, claimNo: 2 }, 'available', { attempt })
    await rescheduleJobs(run, place === 'first' ? [stale, right] : [right, stale])
    expect(await rowsOf(database, job.id)).toMatchObject([{ place: 'job', state: 'available' }])
    expect(await jobAttempts(database, job.id)).toMatchObject([{ claimNo: 2 }])
    expect(await steps(job.id)).toEqual(['call'])
  })
})
