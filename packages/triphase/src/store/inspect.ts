import { type Job, type JobState, PRIORITIES, type Priority } from '../job.ts'
import type { PhaseLedger } from '../telemetry.ts'
import type { Database } from './database.ts'

const LIVE = /* sql */ `
SELECT id::text, task, queue, state, priority, attempt, max_attempts, crash_count, input::text, NULL::text AS result,
       NULL::text AS error, tags, inserted_at, run_at, claimed_at, NULL::timestamptz AS finished_at
FROM triphase.job WHERE id = $1`

// By job_pkey and job_history_id, in one snapshot: the job is in exactly one of them, whatever happens to it meanwhile.
const LIVE_OR_FINISHED = /* sql */ `
${LIVE} UNION ALL
SELECT id::text, task, queue, state, priority, attempt, max_attempts, crash_count, input::text, result::text,
       error::text, tags, inserted_at, run_at, claimed_at, finished_at
FROM triphase.job_history WHERE id = $1`

// Reads all live jobs: for tests, reports and dashboards, never on the path of a job.
const COUNTS = /* sql */ `
SELECT queue, state, count(*)::int AS count FROM triphase.job GROUP BY queue, state ORDER BY queue, state`

const ATTEMPTS = /* sql */ `
SELECT claim_no, attempt, outcome, started_at, finished_at, checkouts, wait_ms, hold_ms, longest_hold_ms,
       error::text, phases::text
FROM triphase.job_attempt WHERE job_id = $1 ORDER BY finished_at, claim_no`

interface JobRow {
  id: string
  task: string
  queue: string
  state: JobState
  priority: number
  attempt: number
  max_attempts: number
  crash_count: number
  input: string
  result: string | null
  error: string | null
  tags: string[] | null
  inserted_at: Date
  run_at: Date
  claimed_at: Date | null
  finished_at: Date | null
}

/** A finished claim that was worth keeping: a failure, a crash, or a staged job's ledger. Lengths are milliseconds. */
export interface JobAttempt {
  claimNo: number
  attempt: number
  outcome: 'completed' | 'retried' | 'snoozed' | 'cancelled' | 'discarded' | 'crashed'
  startedAt: Date | null
  finishedAt: Date
  checkouts: number | null
  waitMs: number | null
  holdMs: number | null
  longestHoldMs: number | null
  error: unknown
  /** Connection time of each phase, up to the moment in which this was written. */
  phases: Record<string, PhaseLedger> | null
}

/** A job, live or finished; null when there is none, or history no longer has it. */
export async function findJob(database: Database, id: string): Promise<Job | null> {
  // Alone first, since a plan over all partitions of history costs more than the row.
  const [live] = await database.query<JobRow>(LIVE, [id])
  const [found] = live ? [live] : await database.query<JobRow>(LIVE_OR_FINISHED, [id])
  return found ? jobFrom(found) : null
}

function jobFrom(row: JobRow): Job {
  return {
    id: row.id,
    task: row.task,
    queue: row.queue,
    state: row.state,
    priority: PRIORITIES[row.priority] as Priority,
    attempt: row.attempt,
    maxAttempts: row.max_attempts,
    crashCount: row.crash_count,
    input: JSON.parse(row.input),
    result: row.result === null ? null : JSON.parse(row.result),
    error: row.error === null ? null : JSON.parse(row.error),
    tags: row.tags ?? [],
    insertedAt: row.inserted_at,
    runAt: row.run_at,
    claimedAt: row.claimed_at,
    finishedAt: row.finished_at,
  }
}

/** How many live jobs there are of each queue and state. */
export function countLiveJobs(
  database: Database,
): Promise<{ queue: string; state: JobState; count: number }[]> {
  return database.query(COUNTS)
}

/** The kept attempts of a job, oldest first. */
export async function jobAttempts(database: Database, jobId: string): Promise<JobAttempt[]> {
  const rows = await database.query<AttemptRecord>(ATTEMPTS, [jobId])
  return rows.map((row) => ({
    claimNo: row.claim_no,
    attempt: row.attempt,
    outcome: row.outcome,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    checkouts: row.checkouts,
    waitMs: row.wait_ms,
    holdMs: row.hold_ms,
    longestHoldMs: row.longest_hold_ms,
    error: row.error === null ? null : JSON.parse(row.error),
    phases: row.phases === null ? null : JSON.parse(row.phases),
  }))
}

interface AttemptRecord {
  claim_no: number
  attempt: number
  outcome: JobAttempt['outcome']
  started_at: Date | null
  finished_at: Date
  checkouts: number | null
  wait_ms: number | null
  hold_ms: number | null
  longest_hold_ms: number | null
  error: string | null
  phases: string | null
}
