import type { Database } from './database.ts'

// By job_history_id. A job that is brought back keeps its id, so the answers that were stored for it are found; it
// gets a fresh set of attempts and a higher claim number than any before. It takes its unique key again; where a
// live job has that by now, it stays where it is (for the condition on ctid see insert.ts). The request by which it
// was cancelled is spent.
const BRING_BACK = /* sql */ `
WITH found AS (
  SELECT id, unique_key FROM triphase.job_history
  WHERE id = $1 AND state IN ('discarded', 'cancelled') FOR UPDATE
), taken AS (
  INSERT INTO triphase.job_unique AS u (key, job_id)
  SELECT unique_key, id FROM found WHERE unique_key IS NOT NULL
  ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id
    WHERE u.job_id = excluded.job_id
       OR (coalesce(u.expires_at <= clock_timestamp(), true)
           AND EXISTS (SELECT FROM triphase.job_unique seen WHERE seen.key = u.key AND seen.ctid = u.ctid)
           AND NOT EXISTS (SELECT FROM triphase.job WHERE job.id = u.job_id))
  RETURNING job_id
), gone AS (
  DELETE FROM triphase.job_history h USING found
  WHERE h.id = found.id AND h.state IN ('discarded', 'cancelled')
    AND (found.unique_key IS NULL OR EXISTS (SELECT FROM taken))
  RETURNING h.*
), wanted_again AS (
  DELETE FROM triphase.cancel_request WHERE job_id IN (SELECT id FROM gone)
)
INSERT INTO triphase.job (
  id, run_at, inserted_at, claim_no, attempt, max_attempts, timeout_ms, priority, crash_count, max_crashes, queue,
  task, state, input, tags, unique_key, traceparent, task_version, weight, parent_id, group_id, concurrency_key, tenant,
  codec)
SELECT id, clock_timestamp(), inserted_at, claim_no + 1, 0, max_attempts, timeout_ms, priority, 0, max_crashes, queue,
       task, 'available', input, tags, unique_key, traceparent, task_version, weight, parent_id, group_id, concurrency_key,
       tenant, codec
FROM gone
RETURNING queue`

// By job_pkey: a job that waits for its next attempt need not wait.
const HURRY = /* sql */ `
UPDATE triphase.job
SET state = 'available', run_at = clock_timestamp(), position = nextval('triphase.job_position')
WHERE id = $1 AND state IN ('retryable', 'scheduled') RETURNING queue`

/** Makes a discarded, cancelled, retryable or scheduled job available; returns its queue, or null when it is none of these. */
export async function retryJob(database: Database, id: string): Promise<string | null> {
  const [back] = await database.query<{ queue: string }>(BRING_BACK, [id])
  if (back) return back.queue
  const [hurried] = await database.query<{ queue: string }>(HURRY, [id])
  return hurried?.queue ?? null
}
