import type { Database } from './database.ts'

// Answers of jobs that are no longer live are kept as long as history has the job, which may be retried from there (a
// job may fail long after its answer was stored); then they go, some at a time. Written for small tables: an answer is
// deleted with its job's completion. Both questions are scalar (job_pkey, job_history_id): as EXISTS they may be answered by
// joins that read whole tables for each row. What is deleted is an array, here and below: the rows of an IN may be found anew
// for each row of the table (7,000 answers: more than a minute, where the planner took the table for empty).
const OLD_ANSWERS = /* sql */ `
DELETE FROM triphase.answer
WHERE ctid = ANY (ARRAY(
  SELECT a.ctid FROM triphase.answer a
  WHERE a.stored_at < clock_timestamp() - $1 * interval '1 millisecond'
    AND (SELECT j.id FROM triphase.job j WHERE j.id = a.job_id) IS NULL
    AND (SELECT h.id FROM triphase.job_history h WHERE h.id = a.job_id LIMIT 1) IS NULL
  LIMIT 5000 FOR UPDATE SKIP LOCKED
)) RETURNING 1`

// By job_unique_pkey, and job_pkey once a key.
const OLD_KEYS = /* sql */ `
DELETE FROM triphase.job_unique
WHERE key = ANY (ARRAY(
  SELECT u.key FROM triphase.job_unique u
  WHERE u.expires_at < clock_timestamp() AND (SELECT j.id FROM triphase.job j WHERE j.id = u.job_id) IS NULL
  LIMIT 5000
)) AND expires_at < clock_timestamp() RETURNING 1`

// Runs of sweeps that have been over for longer than history is kept; of each sweep the latest stays, which is the one that
// is shown. With them go pages whose jobs were deleted. By sweep_run_sweep, sweep_page_run, job_pkey; runs are few.
const OLD_RUNS = /* sql */ `
WITH old AS (
  DELETE FROM triphase.sweep_run
  WHERE id = ANY (ARRAY(
    SELECT r.id FROM triphase.sweep_run r
    WHERE r.finished_at < clock_timestamp() - $1 * interval '1 millisecond'
      AND EXISTS (SELECT FROM triphase.sweep_run later WHERE later.sweep = r.sweep AND later.id > r.id)
      AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = r.hook_job)
      AND NOT EXISTS (
        SELECT FROM triphase.sweep_page p JOIN triphase.job j ON j.id = p.job_id WHERE p.run_id = r.id)
    LIMIT 5000
  )) RETURNING id
), page AS (
  DELETE FROM triphase.sweep_page WHERE run_id IN (SELECT id FROM old) RETURNING id
), tries AS (
  DELETE FROM triphase.sweep_record_try WHERE page_id IN (SELECT id FROM page)
)
SELECT id FROM old`

/** Deletes answers and expired unique keys whose jobs are gone, and old runs of sweeps; returns how many. */
export async function deleteLeftovers(database: Database, retentionMs: number): Promise<number> {
  const answers = await database.query(OLD_ANSWERS, [retentionMs])
  const keys = await database.query(OLD_KEYS)
  const runs = await database.query(OLD_RUNS, [retentionMs])
  return answers.length + keys.length + runs.length
}
