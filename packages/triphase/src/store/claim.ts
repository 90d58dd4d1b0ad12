import type { ClaimedJob } from '../job.ts'
import type { Database } from './database.ts'

// Candidates come from job_available and job_suspect in order and are locked as they are read; the UPDATE finds them
// by job_pkey through an array, so its plan does not depend on statistics. At most one suspect is claimed, and only
// when the process runs none: a job that took two processes down must not take other suspects with it.
const CLAIM = /* sql */ `
UPDATE triphase.job
SET state = 'executing', claim_no = claim_no + 1, attempt = attempt + 1, process_id = $2,
    claimed_at = clock_timestamp()
WHERE id = ANY (ARRAY(
  SELECT id FROM (
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count >= 2
      ORDER BY priority, position LIMIT $4 FOR UPDATE SKIP LOCKED
    ) suspect
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count < 2
      ORDER BY priority, position LIMIT $3 FOR UPDATE SKIP LOCKED
    ) ordinary
  ) candidate LIMIT $3
))
RETURNING id::text, claim_no, attempt, max_attempts, crash_count, timeout_ms, queue, task, input::text, tags,
          inserted_at, claimed_at, traceparent, priority, position::text`

interface ClaimRow {
  id: string
  claim_no: number
  attempt: number
  max_attempts: number
  crash_count: number
  timeout_ms: number | null
  queue: string
  task: string
  input: string
  tags: string[] | null
  inserted_at: Date
  claimed_at: Date
  traceparent: string | null
  priority: number
  position: string
}

/** Takes up to `limit` of a queue's available jobs for a process, the first in line first. */
export async function claimJobs(
  database: Database,
  claim: { queue: string; processId: string; limit: number; suspects: 0 | 1 },
): Promise<ClaimedJob[]> {
  const rows = await database.query<ClaimRow>(CLAIM, [
    claim.queue,
    claim.processId,
    claim.limit,
    claim.suspects,
  ])
  return rows.sort(inLine).map(claimedJob)
}

function inLine(a: ClaimRow, b: ClaimRow): number {
  return a.priority - b.priority || Number(a.position) - Number(b.position)
}

function claimedJob(row: ClaimRow): ClaimedJob {
  return {
    id: row.id,
    claimNo: row.claim_no,
    attempt: row.attempt,
    maxAttempts: row.max_attempts,
    crashCount: row.crash_count,
    timeoutMs: row.timeout_ms,
    queue: row.queue,
    task: row.task,
    input: JSON.parse(row.input),
    tags: row.tags ?? [],
    insertedAt: row.inserted_at,
    claimedAt: row.claimed_at,
    traceparent: row.traceparent,
  }
}
