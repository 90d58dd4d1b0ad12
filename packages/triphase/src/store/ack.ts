import type { Database } from './database.ts'
import { type RunStatement, textArrayLiteral } from './insert.ts'

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

// `CASE WHEN … IN` keeps the fence a hashed filter over the rows found by job_pkey: as a plain IN it becomes a join,
// whose order would hang on statistics that are stale by the time a queue fills.
// A job leaves `job` and enters history in this one statement, so its id is in exactly one of them. What hangs on it
// is removed by its primary key; most jobs have none of it, and say so in the row.
const FINISH = /* sql */ `
WITH ack AS (
  SELECT * FROM unnest(
    $1::bigint[], $2::int[], $3::text[], $4::json[], $5::json[], $6::text[], $7::int[], $8::real[], $9::real[],
    $10::real[], $11::json[], $12::text[]
  ) AS t(job_id, claim_no, state, result, error, outcome, checkouts, wait_ms, hold_ms, longest_hold_ms, phases,
         drop_steps)
), gone AS (
  DELETE FROM triphase.job
  WHERE id = ANY ($1::bigint[]) AND state = 'executing'
    AND CASE WHEN (id, claim_no) IN (SELECT a.job_id, a.claim_no FROM ack a) THEN true ELSE false END
  RETURNING *
), finished AS (
  INSERT INTO triphase.job_history (
    id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
    crash_count, max_crashes, queue, task, state, input, result, error, tags, unique_key, traceparent,
    task_version, weight, parent_id, group_id, concurrency_key, tenant, codec)
  SELECT g.id, g.run_at, g.inserted_at, g.claimed_at, g.process_id, g.claim_no, g.attempt, g.max_attempts,
         g.timeout_ms, g.priority, g.crash_count, g.max_crashes, g.queue, g.task, a.state, g.input, a.result,
         a.error, g.tags, g.unique_key, g.traceparent, g.task_version, g.weight, g.parent_id, g.group_id,
         g.concurrency_key, g.tenant, g.codec
  FROM gone g JOIN ack a ON a.job_id = g.id
), kept AS (
  INSERT INTO triphase.job_attempt (
    job_id, started_at, process_id, claim_no, attempt, checkouts, wait_ms, hold_ms, longest_hold_ms, queue, task,
    outcome, error, phases)
  SELECT g.id, g.claimed_at, g.process_id, g.claim_no, g.attempt, a.checkouts, a.wait_ms, a.hold_ms,
         a.longest_hold_ms, g.queue, g.task, a.outcome, a.error, a.phases
  FROM gone g JOIN ack a ON a.job_id = g.id WHERE a.outcome IS NOT NULL
), freed AS (
  DELETE FROM triphase.job_unique
  WHERE key = ANY (ARRAY(SELECT unique_key FROM gone WHERE unique_key IS NOT NULL))
    AND job_id = ANY ($1::bigint[]) AND coalesce(expires_at <= clock_timestamp(), true)
), answered AS (
  DELETE FROM triphase.answer x
  WHERE x.job_id = ANY (ARRAY(
    SELECT g.id FROM gone g JOIN ack a ON a.job_id = g.id
    WHERE (a.state = 'completed' AND a.outcome IS NOT NULL) OR a.drop_steps IS NOT NULL))
    AND EXISTS (
      SELECT FROM ack a WHERE a.job_id = x.job_id
        AND (a.state = 'completed' OR a.drop_steps = '{}' OR x.step = ANY (a.drop_steps::text[])))
)
SELECT id::text FROM gone`

// Back to waiting: the same fence. A job that is due at once takes a new place at the end of its queue.
const RESCHEDULE = /* sql */ `
WITH ack AS (
  SELECT * FROM unnest(
    $1::bigint[], $2::int[], $3::text[], $4::float8[], $5::int[], $6::json[], $7::text[], $8::int[], $9::real[],
    $10::real[], $11::real[], $12::json[], $13::text[]
  ) AS t(job_id, claim_no, state, delay_ms, given_back, error, outcome, checkouts, wait_ms, hold_ms,
         longest_hold_ms, phases, drop_steps)
), held AS (
  SELECT id, claimed_at, process_id, claim_no, attempt, queue, task FROM triphase.job
  WHERE id = ANY ($1::bigint[]) AND state = 'executing'
    AND CASE WHEN (id, claim_no) IN (SELECT a.job_id, a.claim_no FROM ack a) THEN true ELSE false END
  ORDER BY id FOR UPDATE
), back AS (
  UPDATE triphase.job
  SET state = a.state, run_at = clock_timestamp() + a.delay_ms * interval '1 millisecond',
      attempt = greatest(job.attempt - a.given_back, 0), process_id = NULL, claimed_at = NULL,
      position = CASE WHEN a.state = 'available' THEN nextval('triphase.job_position') ELSE job.position END
  FROM ack a
  WHERE job.id = ANY (ARRAY(SELECT id FROM held)) AND a.job_id = job.id
  RETURNING job.id
), kept AS (
  INSERT INTO triphase.job_attempt (
    job_id, started_at, process_id, claim_no, attempt, checkouts, wait_ms, hold_ms, longest_hold_ms, queue, task,
    outcome, error, phases)
  SELECT h.id, h.claimed_at, h.process_id, h.claim_no, h.attempt, a.checkouts, a.wait_ms, a.hold_ms,
         a.longest_hold_ms, h.queue, h.task, a.outcome, a.error, a.phases
  FROM held h JOIN ack a ON a.job_id = h.id WHERE a.outcome IS NOT NULL
), dropped AS (
  DELETE FROM triphase.answer x USING ack a
  WHERE x.job_id = ANY (ARRAY(SELECT id FROM held)) AND x.job_id = a.job_id AND a.drop_steps IS NOT NULL
    AND (a.drop_steps = '{}' OR x.step = ANY (a.drop_steps::text[]))
)
SELECT id::text FROM held`

// A transaction that is about to commit the ack holds the job's row (job_pkey). Waiting for it is a statement of its
// own: the one that reads afterwards needs a snapshot that was taken after the wait.
const WAIT = /* sql */ `SELECT FROM triphase.job WHERE id = ANY ($1::bigint[]) ORDER BY id FOR SHARE`

// By job_history_id and job_pkey. A claim that is no longer executing under its own number was acked by itself:
// everybody else who takes a job from a claim raises the number.
const ACKED = /* sql */ `
SELECT k.job_id::text AS id
FROM unnest($1::bigint[], $2::int[]) AS k(job_id, claim_no)
WHERE EXISTS (SELECT FROM triphase.job_history h WHERE h.id = k.job_id AND h.claim_no = k.claim_no)
   OR EXISTS (
     SELECT FROM triphase.job j WHERE j.id = k.job_id AND j.claim_no = k.claim_no AND j.state <> 'executing')`

/** Finishes jobs (`completed`, `cancelled`, `discarded`); returns the ids of those whose claim still held. */
export async function finishJobs(run: RunStatement, acks: readonly Ack[]): Promise<Set<string>> {
  const inOrder = byId(acks)
  const rows = await run(FINISH, [
    inOrder.map((ack) => ack.jobId),
    inOrder.map((ack) => ack.claimNo),
    inOrder.map((ack) => ack.state),
    inOrder.map((ack) => ack.result),
    inOrder.map((ack) => ack.error),
    ...attemptColumns(inOrder),
    inOrder.map(droppedSteps),
  ])
  return idsOf(rows)
}

/** Sends jobs back to waiting (`retryable`, `scheduled`, `available`); returns the ids of those whose claim still held. */
export async function rescheduleJobs(run: RunStatement, acks: readonly Ack[]): Promise<Set<string>> {
  const inOrder = byId(acks)
  const rows = await run(RESCHEDULE, [
    inOrder.map((ack) => ack.jobId),
    inOrder.map((ack) => ack.claimNo),
    inOrder.map((ack) => ack.state),
    inOrder.map((ack) => ack.delayMs),
    inOrder.map((ack) => (ack.countsAsAttempt ? 0 : 1)),
    inOrder.map((ack) => ack.error),
    ...attemptColumns(inOrder),
    inOrder.map((ack) => ack.dropAnswers && textArrayLiteral(ack.dropAnswers)),
  ])
  return idsOf(rows)
}

/** Of claims whose ack found nothing to do, or whose outcome is unknown: those that were acked by themselves. */
export async function ackedClaims(
  database: Database,
  claims: readonly { jobId: string; claimNo: number }[],
): Promise<Set<string>> {
  const ids = claims.map((claim) => claim.jobId)
  await database.query(WAIT, [ids])
  const rows = await database.query(ACKED, [ids, claims.map((claim) => claim.claimNo)])
  return idsOf(rows)
}

function byId(acks: readonly Ack[]): Ack[] {
  return [...acks].sort((a, b) => a.jobId.length - b.jobId.length || (a.jobId < b.jobId ? -1 : 1))
}

function idsOf(rows: readonly unknown[]): Set<string> {
  return new Set((rows as { id: string }[]).map(({ id }) => id))
}

/** As text: an array of arrays would have to be rectangular. */
function droppedSteps(ack: Ack): string | null {
  return ack.dropAnswers && `{${ack.dropAnswers.map(quoted).join(',')}}`
}

function quoted(step: string): string {
  return `"${step.replaceAll(/["\\]/g, '\\$&')}"`
}

function attemptColumns(acks: readonly Ack[]): unknown[] {
  return [
    acks.map((ack) => ack.attempt?.outcome ?? null),
    acks.map((ack) => ack.attempt?.checkouts ?? null),
    acks.map((ack) => ack.attempt?.waitMs ?? null),
    acks.map((ack) => ack.attempt?.holdMs ?? null),
    acks.map((ack) => ack.attempt?.longestHoldMs ?? null),
    acks.map((ack) => ack.attempt?.phases ?? null),
  ]
}
