import { expect, test } from 'vitest'
import { TriphaseError } from '../../src/index.ts'
import type { ClaimedJob } from '../../src/job.ts'
import { RunningClaim, RunningClaims } from '../../src/queue/claims.ts'

function claimOf(id: string, claimNo = 1): RunningClaim {
  const job: ClaimedJob = {
    id,
    claimNo,
    attempt: 1,
    maxAttempts: 3,
    crashCount: 0,
    timeoutMs: null,
    queue: 'queue',
    task: 'task',
    input: null,
    tags: [],
    insertedAt: new Date(),
    claimedAt: new Date(),
    traceparent: null,
  }
  return new RunningClaim(job)
}

test('the end of an earlier claim leaves a later claim of the same job', () => {
  const claims = new RunningClaims()
  const [earlier, later] = [claimOf('7', 1), claimOf('7', 2)]
  claims.add(earlier)
  claims.add(later)
  claims.remove(earlier)
  expect(claims.get('7')).toBe(later)
  claims.remove(later)
  expect(claims.size).toBe(0)
})

test('empty() resolves when the last claim is gone, for all who wait', async () => {
  const claims = new RunningClaims()
  await claims.empty()
  const [a, b] = [claimOf('1'), claimOf('2')]
  claims.add(a)
  claims.add(b)
  let empty = 0
  const waits = [claims.empty(), claims.empty()].map((wait) => wait.then(() => empty++))
  claims.remove(a)
  await Promise.resolve()
  expect(empty).toBe(0)
  claims.remove(b)
  await Promise.all(waits)
})

test('the first reason to abort is the reason', () => {
  const claim = claimOf('1')
  claim.abort(new TriphaseError('CANCELLED', 'cancelled on request'))
  claim.abort(new TriphaseError('STOPPING', 'stopping'))
  expect(claim.signal.reason).toMatchObject({ code: 'CANCELLED' })
})
