import type { ClaimedJob } from '../job.ts'
import type { Database } from './database.ts'

const CLAIM = /* sql */ `SELECT * FROM triphase.claim_jobs($1, $2, $3, $4, $5, $6, $7, $8)`

/** What a claim says of the queue, beyond its jobs: how far it reached, and which transactions it could not see. */
export interface ClaimReceipt {
  /** The last position that was claimed of each priority, suspects apart. */
  tops: Map<number, number>
  /** The first one. */
  bottoms: Map<number, number>
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
  const [tops, bottoms] = [new Map<number, number>(), new Map<number, number>()]
  for (const { priority, position, crash_count } of rows) {
    if (crash_count >= 2) continue
    tops.set(priority, Math.max(tops.get(priority) ?? 0, Number(position)))
    bottoms.set(priority, Math.min(bottoms.get(priority) ?? Number.POSITIVE_INFINITY, Number(position)))
  }
  return { tops, bottoms, oldestOpen: Number(first.oldest_open), horizon: Number(first.horizon) }
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
