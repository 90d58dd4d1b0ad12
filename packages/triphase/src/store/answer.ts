import type { Database } from './database.ts'

const FIND = /* sql */ `
SELECT step, answer::text AS answer FROM triphase.answer WHERE job_id = $1`

// Not fenced: an answer that was paid for is kept, whoever holds the job now. The first writer wins (answer_pkey);
// the second gets the first one's answer. A job that is gone needs no answer.
const STORE = /* sql */ `
WITH stored AS (
  INSERT INTO triphase.answer (job_id, claim_no, step, answer)
  SELECT $1, $2, $3, $4::json WHERE EXISTS (SELECT FROM triphase.job WHERE id = $1)
  ON CONFLICT (job_id, step) DO NOTHING
  RETURNING 1
)
SELECT NULL::text AS answer, true AS first FROM stored
UNION ALL
SELECT answer::text, false FROM triphase.answer
WHERE job_id = $1 AND step = $3 AND NOT EXISTS (SELECT FROM stored)`

/** A job's stored answers by step, as JSON text. */
export async function findAnswers(database: Database, jobId: string): Promise<Map<string, string>> {
  const rows = await database.query<{ step: string; answer: string }>(FIND, [jobId])
  return new Map(rows.map(({ step, answer }) => [step, answer]))
}

/** Stores a step's answer if there is none yet; returns the one that stands. */
export async function storeAnswer(
  database: Database,
  answer: { jobId: string; claimNo: number; step: string; json: string },
): Promise<{ json: string; first: boolean }> {
  const values = [answer.jobId, answer.claimNo, answer.step, answer.json]
  const [row] = await database.query<{ answer: string | null; first: boolean }>(STORE, values)
  if (row?.first) return { json: answer.json, first: true }
  // No row: the job is gone, or another writer's row was committed while this statement ran, and is read now.
  const standing = row?.answer ?? (await findAnswers(database, answer.jobId)).get(answer.step)
  return { json: standing ?? answer.json, first: false }
}
