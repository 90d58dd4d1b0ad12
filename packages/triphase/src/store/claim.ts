import type { ClaimedJob } from '../job.ts'
import type { Database } from './database.ts'

// Candidates come from job_suspect and job_available in order and are locked as they are read, one priority after the
// other: an Append stops as soon as the limit is reached, so a later priority costs nothing then. The UPDATE finds them
// by job_pkey through an array, so its plan does not depend on statistics. At most one suspect is claimed, and only
// when the process runs none: a job that took two processes down must not take other suspects with it. A process that
// was taken for dead and does not know it yet claims nothing (process_pkey).
const CLAIM = /* sql */ `
UPDATE triphase.job
SET state = 'executing', claim_no = claim_no + 1, attempt = attempt + 1, process_id = $2,
    claimed_at = clock_timestamp()
WHERE EXISTS (SELECT FROM triphase.process WHERE id = $2) AND id = ANY (ARRAY(
  SELECT id FROM (
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count >= 2
      ORDER BY priority, position LIMIT $4 FOR UPDATE SKIP LOCKED
    ) suspect
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count < 2 AND priority = 0 AND position > $5
      ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
    ) urgent
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count < 2 AND priority = 1 AND position > $6
      ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
    ) high
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count < 2 AND priority = 2 AND position > $7
      ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
    ) normal
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = $1 AND state = 'available' AND crash_count < 2 AND priority = 3 AND position > $8
      ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
    ) low
  ) candidate LIMIT $3
))
RETURNING id::text, claim_no, attempt, max_attempts, crash_count, timeout_ms, queue, task, input::text, tags,
          inserted_at, claimed_at, traceparent, priority, position::text,
          pg_snapshot_xmin(pg_current_snapshot())::text AS oldest_open,
          pg_snapshot_xmax(pg_current_snapshot())::text AS horizon`

/** What a claim says of the queue, beyond its jobs: how far it reached, and which transactions it could not see. */
export interface ClaimReceipt {
  /** The last position that was claimed of each priority, suspects apart. */
  tops: Map<number, number>
  /** Every transaction below this number had ended when the claim looked. */
  oldestOpen: number
  /** No transaction from this number on had begun. */
  horizon: number
}

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
  oldest_open: string
  horizon: string
}

/**
 * Takes up to `limit` of a queue's available jobs for a process, the first in line first.
 *
 * @param claim.marks positions to begin after, one a priority.
 * @returns the jobs; the receipt is null when there are none.
 */
export async function claimJobs(
  database: Database,
  claim: { queue: string; processId: string; limit: number; suspects: 0 | 1; marks: readonly number[] },
): Promise<{ jobs: ClaimedJob[]; receipt: ClaimReceipt | null }> {
  const values = [claim.queue, claim.processId, claim.limit, claim.suspects, ...claim.marks]
  const rows = await database.query<ClaimRow>(CLAIM, values)
  return { jobs: rows.sort(inLine).map(claimedJob), receipt: receiptOf(rows) }
}

function receiptOf(rows: readonly ClaimRow[]): ClaimReceipt | null {
  const [first] = rows
  if (!first) return null
  const tops = new Map<number, number>()
  for (const { priority, position, crash_count } of rows) {
    if (crash_count < 2) tops.set(priority, Math.max(tops.get(priority) ?? 0, Number(position)))
  }
  return { tops, oldestOpen: Number(first.oldest_open), horizon: Number(first.horizon) }
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
