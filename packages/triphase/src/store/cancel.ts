import type { Database } from './database.ts'
import { withPartition } from './partitions.ts'

// A waiting job leaves for history at once (job_pkey); a job that is executing belongs to its claim, so only a request
// is written, which its process finds (cancel_request_pkey). Both look at the same snapshot: a job that is claimed
// or acked in between is in neither answer, and the caller asks again.
const CANCEL = /* sql */ `
WITH gone AS (
  DELETE FROM triphase.job WHERE id = $1 AND state <> 'executing' RETURNING *
), finished AS (
  INSERT INTO triphase.job_history (
    id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
    crash_count, max_crashes, queue, task, state, input, error, tags, unique_key, traceparent, task_version,
    weight, parent_id, group_id, concurrency_key, tenant, codec)
  SELECT id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
         crash_count, max_crashes, queue, task, 'cancelled', input, $2::json, tags, unique_key, traceparent,
         task_version, weight, parent_id, group_id, concurrency_key, tenant, codec
  FROM gone
), freed AS (
  DELETE FROM triphase.job_unique u USING gone
  WHERE u.key = gone.unique_key AND u.job_id = gone.id AND coalesce(u.expires_at <= clock_timestamp(), true)
), requested AS (
  INSERT INTO triphase.cancel_request (job_id)
  SELECT id FROM triphase.job WHERE id = $1 AND state = 'executing'
  ON CONFLICT (job_id) DO UPDATE SET requested_at = clock_timestamp()
  RETURNING job_id
)
SELECT CASE WHEN EXISTS (SELECT FROM gone) THEN 'cancelled'
            WHEN EXISTS (SELECT FROM requested) THEN 'requested'
            ELSE 'not-found' END AS outcome`

// A request that outlived its claim: the job went back to waiting as it was written (cancel_request_pkey, job_pkey).
const WAITING_REQUESTS = /* sql */ `
SELECT c.job_id::text AS id FROM triphase.cancel_request c
WHERE EXISTS (SELECT FROM triphase.job j WHERE j.id = c.job_id AND j.state <> 'executing')`

const DROP_SPENT_REQUESTS = /* sql */ `
DELETE FROM triphase.cancel_request c WHERE NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = c.job_id)`

const EXISTS = /* sql */ `SELECT FROM triphase.job WHERE id = $1`

/** Cancelled while it waited; told to stop where it runs; or no live job has this id. */
export type CancelOutcome = 'cancelled' | 'requested' | 'not-found'

const TRIES = 20

/** Cancels a waiting job, or asks the process that runs it to. `not-found`: there is no such live job. */
export async function cancelJob(database: Database, jobId: string, error: string): Promise<CancelOutcome> {
  for (let tries = 0; tries < TRIES; tries++) {
    const [row] = await withPartition(database, () =>
      database.query<{ outcome: CancelOutcome }>(CANCEL, [jobId, error]),
    )
    if (row && row.outcome !== 'not-found') return row.outcome
    if ((await database.query(EXISTS, [jobId])).length === 0) return 'not-found'
  }
  throw new Error(`job ${jobId} changed its state ${TRIES} times while it was being cancelled`)
}

/** Carries out requests whose jobs went back to waiting, and drops those whose jobs are gone. */
export async function settleCancelRequests(database: Database, error: string): Promise<void> {
  for (const { id } of await database.query<{ id: string }>(WAITING_REQUESTS))
    await cancelJob(database, id, error)
  await database.query(DROP_SPENT_REQUESTS)
}
