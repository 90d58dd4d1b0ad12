import type { Database } from './database.ts'
import { withPartition } from './partitions.ts'

export interface Rescued {
  again: { id: string; queue: string }[]
  discarded: string[]
}

// A process is removed only if it has not beaten since it was observed: process_pkey, one row lock, so either its
// beat comes first and it lives, or it finds its row gone. Its jobs (job_executing) get a new claim number at once,
// which refuses the dead claim's acks. A crash gives the attempt back and is counted by itself; a process that was
// stopping does not count. SKIP LOCKED passes over a job whose own claim is writing its ack at this moment. A job that
// the dead process was asked to cancel is cancelled here (cancel_request_pkey), before anybody can claim it again.
const RESCUE = /* sql */ `
WITH dead AS (
  DELETE FROM triphase.process WHERE id = $1 AND beat = $2 RETURNING id, stopping
), held AS (
  SELECT j.id, j.crash_count + CASE WHEN dead.stopping THEN 0 ELSE 1 END AS crashes, j.max_crashes,
         $4::json IS NOT NULL AND EXISTS (SELECT FROM triphase.cancel_request c WHERE c.job_id = j.id) AS cancelled
  FROM dead JOIN triphase.job j ON j.process_id = dead.id AND j.state = 'executing'
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), gone AS (
  DELETE FROM triphase.job
  WHERE id = ANY (ARRAY(SELECT id FROM held WHERE crashes >= max_crashes OR cancelled)) RETURNING *
), finished AS (
  INSERT INTO triphase.job_history (
    id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
    crash_count, max_crashes, queue, task, state, input, error, tags, unique_key, traceparent, task_version,
    weight, parent_id, group_id, concurrency_key, tenant, codec)
  SELECT g.id, g.run_at, g.inserted_at, g.claimed_at, g.process_id, g.claim_no + 1, g.attempt, g.max_attempts,
         g.timeout_ms, g.priority, h.crashes, g.max_crashes, g.queue, g.task,
         CASE WHEN h.cancelled THEN 'cancelled' ELSE 'discarded' END, g.input,
         CASE WHEN h.cancelled THEN $4::json ELSE $3::json END, g.tags, g.unique_key, g.traceparent,
         g.task_version, g.weight, g.parent_id, g.group_id, g.concurrency_key, g.tenant, g.codec
  FROM gone g JOIN held h ON h.id = g.id
), freed AS (
  DELETE FROM triphase.job_unique
  WHERE key = ANY (ARRAY(SELECT unique_key FROM gone WHERE unique_key IS NOT NULL))
    AND job_id = ANY (ARRAY(SELECT id FROM gone)) AND coalesce(expires_at <= clock_timestamp(), true)
), again AS (
  UPDATE triphase.job
  SET state = 'available', claim_no = claim_no + 1, attempt = attempt - 1, process_id = NULL, claimed_at = NULL,
      crash_count = held.crashes, position = nextval('triphase.job_position')
  FROM held
  WHERE job.id = ANY (ARRAY(SELECT id FROM held WHERE crashes < max_crashes AND NOT cancelled)) AND held.id = job.id
  RETURNING job.id, job.queue
), attempts AS (
  INSERT INTO triphase.job_attempt (job_id, started_at, process_id, claim_no, attempt, queue, task, outcome, error)
  SELECT j.id, j.claimed_at, j.process_id, j.claim_no, j.attempt, j.queue, j.task, 'crashed', $3::json
  FROM triphase.job j WHERE j.id = ANY (ARRAY(SELECT id FROM held))
)
SELECT (SELECT count(*) FROM dead)::int AS dead,
       (SELECT json_agg(json_build_object('id', id::text, 'queue', queue)) FROM again) AS again,
       (SELECT json_agg(id::text) FROM held WHERE crashes >= max_crashes AND NOT cancelled) AS discarded`

interface RescueRow {
  dead: number
  again: string | null
  discarded: string | null
}

/**
 * Takes everything from a process that was observed dead at `beat`; null when it has beaten since, or somebody else was
 * first.
 *
 * @param cancelError error of the jobs that the process was asked to cancel; null: they are left to maintenance.
 */
export async function rescueProcess(
  database: Database,
  peer: { id: string; beat: string },
  error: string,
  cancelError: string | null = null,
): Promise<Rescued | null> {
  const values = [peer.id, peer.beat, error, cancelError]
  const [row] = await withPartition(database, () => database.query<RescueRow>(RESCUE, values))
  if (!row || row.dead === 0) return null
  return { again: JSON.parse(row.again ?? '[]'), discarded: JSON.parse(row.discarded ?? '[]') }
}

// Executing jobs of a process that has no row: it was removed while an ack of theirs was under way that then failed,
// or it claimed before it noticed its removal. job_executing, process_pkey.
const RESCUE_ORPHANS = /* sql */ `
WITH held AS (
  SELECT j.id FROM triphase.job j
  WHERE j.state = 'executing' AND NOT EXISTS (SELECT FROM triphase.process p WHERE p.id = j.process_id)
  ORDER BY j.id FOR UPDATE SKIP LOCKED
)
UPDATE triphase.job
SET state = 'available', claim_no = claim_no + 1, attempt = attempt - 1, process_id = NULL, claimed_at = NULL,
    position = nextval('triphase.job_position')
WHERE id = ANY (ARRAY(SELECT id FROM held)) RETURNING id::text, queue`

/** Makes executing jobs available again whose process has no row. */
export function rescueOrphans(database: Database): Promise<{ id: string; queue: string }[]> {
  return database.query(RESCUE_ORPHANS)
}
