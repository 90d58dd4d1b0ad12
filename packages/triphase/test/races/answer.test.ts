import { describe, expect, test } from 'vitest'
import { finishJobs } from '../../src/store/ack.ts'
import { findAnswer, storeAnswer } from '../../src/store/answer.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, insertClaimed } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

describe('two claims of a job store an answer', () => {
  test.each([
    ['commits: its answer stands for both', 'commit', { json: '"first"', first: false }, '"first"'],
    ['rolls back: the second is stored', 'rollback', { json: '"second"', first: true }, '"second"'],
  ] as const)('the second waits, the first %s', async (_what, end, outcome, stored) => {
    const { database } = bench.schema
    const { id: jobId } = await insertClaimed(database)
    const [a, b] = await Promise.all([sessions.open(), sessions.open()])
    await a.begin()
    const answer = { jobId, claimNo: 2, step: 'call' }
    expect(await storeAnswer(a.database, { ...answer, json: '"first"' })).toMatchObject({ first: true })
    const second = storeAnswer(b.database, { ...answer, claimNo: 1, json: '"second"' })
    await sessions.waits(b, a)
    await a[end]()
    expect(await second).toEqual(outcome)
    expect(await findAnswer(database, jobId, 'call')).toBe(stored)
  })

  test('of different steps: nobody waits', async () => {
    const { database } = bench.schema
    const { id: jobId } = await insertClaimed(database)
    const a = await sessions.open()
    await a.begin()
    await storeAnswer(a.database, { jobId, claimNo: 1, step: 'one', json: '1' })
    expect(await storeAnswer(database, { jobId, claimNo: 1, step: 'two', json: '2' })).toMatchObject({
      first: true,
    })
    await a.commit()
    expect(await findAnswer(database, jobId, 'one')).toBe('1')
    expect(await findAnswer(database, jobId, 'two')).toBe('2')
  })
})

test('an answer for a job that is gone is not stored, and is not lost to its caller', async () => {
  const { database } = bench.schema
  const job = await insertClaimed(database)
  const a = await sessions.open()
  await finishJobs(a.run, [ackOf(job, 'completed')])
  const stored = await storeAnswer(database, { jobId: job.id, claimNo: 1, step: 'call', json: '"late"' })
  expect(stored).toEqual({ json: '"late"', first: false })
  expect(await findAnswer(database, job.id, 'call')).toBeUndefined()
})
