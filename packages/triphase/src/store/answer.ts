import type { Database } from './database.ts'

// By answer_pkey.
const FIND = /* sql */ `
SELECT answer::text AS answer FROM triphase.answer WHERE job_id = $1 AND step = $2`

const STORE = /* sql */ `SELECT answer, first FROM triphase.store_answer($1, $2, $3, $4)`

/** The answer that is stored for a step of a job, as JSON text. */
export async function findAnswer(
  database: Database,
  jobId: string,
  step: string,
): Promise<string | undefined> {
  const [row] = await database.query<{ answer: string }>(FIND, [jobId, step])
  return row?.answer
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
  const standing = row?.answer ?? (await findAnswer(database, answer.jobId, answer.step))
  return { json: standing ?? answer.json, first: false }
}
