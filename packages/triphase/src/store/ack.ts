import type { Database } from './database.ts'
import { arrayOfIds, noneIfAllNull, type RunStatement, textArrayLiteral } from './insert.ts'

/** What a claim is told to become, with what is kept of it. Lengths of time are milliseconds; json is text. */
export interface Ack {
  jobId: string
  claimNo: number
  /** Final, or back to waiting. */
  state: 'completed' | 'cancelled' | 'discarded' | 'retryable' | 'scheduled' | 'available'
  /** Until it is due again. */
  delayMs: number
  /** False: the attempt is given back. */
  countsAsAttempt: boolean
  result: string | null
  error: string | null
  /** A row of the attempts, where one is worth keeping. */
  attempt: AttemptRow | null
  /** Steps whose answers are dropped; null: none, empty: all. */
  dropAnswers: readonly string[] | null
}

export interface AttemptRow {
  outcome: 'completed' | 'retried' | 'snoozed' | 'cancelled' | 'discarded'
  checkouts: number
  waitMs: number
  holdMs: number
  longestHoldMs: number
  phases: string
}

const FINISH = /* sql */ `
SELECT triphase.finish_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)::text AS ids`

const RESCHEDULE = /* sql */ `
SELECT triphase.reschedule_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)::text AS ids`

// A transaction that is about to commit the ack holds the job's row (job_pkey). Waiting for it is a statement of its
// own: the one that reads afterwards needs a snapshot that was taken after the wait.
const WAIT = /* sql */ `SELECT FROM triphase.job WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE`

// By job_history_id, job_pkey and job_attempt_job. A claim that is no longer executing under its own number was acked by
// itself: everybody else who takes a job from a claim raises the number. So does the next claim of a job that went back to
// waiting; then its attempt tells, where it left one. Where completed jobs leave no history, one that is in
// neither table was completed: by this claim, or by a later one after a rescue.
const ACKED = /* sql */ `
SELECT array_agg(k.job_id)::text AS ids
FROM unnest($1::bigint[], $2::int[]) AS k(job_id, claim_no)
WHERE EXISTS (SELECT FROM triphase.job_history h WHERE h.id = k.job_id AND h.claim_no = k.claim_no)
   OR EXISTS (
     SELECT FROM triphase.job j WHERE j.id = k.job_id AND j.claim_no = k.claim_no AND j.state <> 'executing')
   OR EXISTS (
     SELECT FROM triphase.job_attempt a
     WHERE a.job_id = k.job_id AND a.claim_no = k.claim_no AND a.outcome <> 'crashed')
   OR (NOT $3 AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = k.job_id)
              AND NOT EXISTS (SELECT FROM triphase.job_history h WHERE h.id = k.job_id))`

/**
 * Finishes jobs (`completed`, `cancelled`, `discarded`); returns the ids of those whose claim still held.
 *
 * @param keepCompleted false: completed jobs leave nothing in history.
 */
export async function finishJobs(
  run: RunStatement,
  acks: readonly Ack[],
  keepCompleted = true,
): Promise<Set<string>> {
  const acked = new Set<string>()
  for (const inOrder of portions(newestById(acks))) {
    const rows = await run(FINISH, [
      inOrder.map((ack) => ack.jobId),
      inOrder.map((ack) => ack.claimNo),
      inOrder.map((ack) => ack.state),
      noneIfAllNull(inOrder.map((ack) => ack.result)),
      noneIfAllNull(inOrder.map((ack) => ack.error)),
      ...attemptColumns(inOrder),
      noneIfAllNull(inOrder.map(droppedSteps)),
      keepCompleted,
    ])
    for (const id of idsOf(rows)) acked.add(id)
  }
  return acked
}

/** In characters: written in well under a second. */
const LARGEST_PORTION = 4_000_000

/**
 * All acks in one statement, unless their results are large: one of half a gigabyte could not be made, and one that takes
 * longer than a statement may would be tried again for ever, and keep all that come after it from being written.
 */
function portions(acks: Ack[]): Ack[][] {
  const all: Ack[][] = []
  let room = 0
  for (const ack of acks) {
    const size = ack.result?.length ?? 0
    if (size > room || all.length === 0) {
      all.push([])
      room = LARGEST_PORTION
    }
    all.at(-1)?.push(ack)
    room -= size
  }
  return all
}

/** Sends jobs back to waiting (`retryable`, `scheduled`, `available`); returns the ids of those whose claim still held. */
export async function rescheduleJobs(run: RunStatement, acks: readonly Ack[]): Promise<Set<string>> {
  const inOrder = newestById(acks)
  const rows = await run(RESCHEDULE, [
    inOrder.map((ack) => ack.jobId),
    inOrder.map((ack) => ack.claimNo),
    inOrder.map((ack) => ack.state),
    inOrder.map((ack) => ack.delayMs),
    inOrder.map((ack) => (ack.countsAsAttempt ? 0 : 1)),
    noneIfAllNull(inOrder.map((ack) => ack.error)),
    ...attemptColumns(inOrder),
    noneIfAllNull(inOrder.map(droppedSteps)),
  ])
  return idsOf(rows)
}

/** Of claims whose ack found nothing to do, or whose outcome is unknown: those that were acked by themselves. */
export async function ackedClaims(
  database: Database,
  claims: readonly { jobId: string; claimNo: number }[],
  keepCompleted = true,
): Promise<Set<string>> {
  const ids = claims.map((claim) => claim.jobId)
  await database.query(WAIT, [ids])
  const rows = await database.query(ACKED, [ids, claims.map((claim) => claim.claimNo), keepCompleted])
  return idsOf(rows)
}

/**
 * The ack of each job's latest claim, by job. A process that was taken for dead may have claimed a job again while the ack of
 * its earlier claim still waits: that one cannot hold any more, and the statements join by job alone.
 */
export function newestClaims(acks: readonly Ack[]): Map<string, Ack> {
  const newest = new Map<string, Ack>()
  for (const ack of acks) {
    if ((newest.get(ack.jobId)?.claimNo ?? 0) < ack.claimNo) newest.set(ack.jobId, ack)
  }
  return newest
}

function newestById(acks: readonly Ack[]): Ack[] {
  const newest = [...newestClaims(acks).values()]
  return newest.sort((a, b) => a.jobId.length - b.jobId.length || (a.jobId < b.jobId ? -1 : 1))
}

function idsOf(rows: readonly unknown[]): Set<string> {
  const [row] = rows as [{ ids: string | null }]
  return new Set(row.ids === null ? [] : arrayOfIds(row.ids))
}

/** As text: an array of arrays would have to be rectangular. */
function droppedSteps(ack: Ack): string | null {
  return ack.dropAnswers && textArrayLiteral(ack.dropAnswers)
}

function attemptColumns(acks: readonly Ack[]): unknown[] {
  return [
    noneIfAllNull(acks.map((ack) => ack.attempt?.outcome ?? null)),
    noneIfAllNull(acks.map((ack) => ack.attempt?.checkouts ?? null)),
    noneIfAllNull(acks.map((ack) => ack.attempt?.waitMs ?? null)),
    noneIfAllNull(acks.map((ack) => ack.attempt?.holdMs ?? null)),
    noneIfAllNull(acks.map((ack) => ack.attempt?.longestHoldMs ?? null)),
    noneIfAllNull(acks.map((ack) => ack.attempt?.phases ?? null)),
  ]
}
