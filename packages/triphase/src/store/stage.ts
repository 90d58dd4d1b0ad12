import type { Database } from './database.ts'

// By job_due. The time is read once, in a subselect: clock_timestamp() in the condition itself could not be used
// with the index. SKIP LOCKED keeps several stagers apart; $2 is only for tests, which move the clock.
const STAGE = /* sql */ `
WITH due AS (
  SELECT id FROM triphase.job
  WHERE state IN ('scheduled', 'retryable') AND run_at <= (SELECT coalesce($2::timestamptz, clock_timestamp()))
  ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
), staged AS (
  UPDATE triphase.job SET state = 'available', position = nextval('triphase.job_position')
  WHERE id = ANY (ARRAY(SELECT id FROM due)) RETURNING queue
)
SELECT queue, count(*)::int AS count FROM staged GROUP BY queue`

// The first entry of job_due.
const NEXT_DUE = /* sql */ `
SELECT extract(epoch FROM run_at - clock_timestamp())::float8 * 1000 AS ms FROM triphase.job
WHERE state IN ('scheduled', 'retryable') ORDER BY run_at LIMIT 1`

/** Makes up to `limit` due jobs available; returns how many of each queue. */
export function stageDueJobs(
  database: Database,
  limit: number,
  now?: Date,
): Promise<{ queue: string; count: number }[]> {
  return database.query(STAGE, [limit, now ?? null])
}

/** Milliseconds until the next job is due, or null when there is none. */
export async function nextDueMs(database: Database): Promise<number | null> {
  const [row] = await database.query<{ ms: number }>(NEXT_DUE)
  return row?.ms ?? null
}
