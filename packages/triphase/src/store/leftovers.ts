import type { Database } from './database.ts'

// Answers of jobs that are no longer live are kept as long as history, for a job that is retried from there; then
// they go, by answer_pkey, some at a time. Written for small tables: an answer is deleted with its job's completion.
const OLD_ANSWERS = /* sql */ `
DELETE FROM triphase.answer
WHERE (job_id, step) IN (
  SELECT a.job_id, a.step FROM triphase.answer a
  WHERE a.stored_at < clock_timestamp() - $1 * interval '1 millisecond'
    AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = a.job_id)
  LIMIT 5000
) RETURNING 1`

const OLD_KEYS = /* sql */ `
DELETE FROM triphase.job_unique
WHERE key IN (
  SELECT u.key FROM triphase.job_unique u
  WHERE u.expires_at < clock_timestamp() AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = u.job_id)
  LIMIT 5000
) RETURNING 1`

/** Deletes answers and expired unique keys whose jobs are gone; returns how many. */
export async function deleteLeftovers(database: Database, retentionMs: number): Promise<number> {
  const answers = await database.query(OLD_ANSWERS, [retentionMs])
  const keys = await database.query(OLD_KEYS)
  return answers.length + keys.length
}
