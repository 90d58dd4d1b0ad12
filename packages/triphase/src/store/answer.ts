import type { Database } from './database.ts'

const FIND = /* sql */ `
SELECT step, answer::text AS answer FROM triphase.answer WHERE job_id = $1`

const STORE = /* sql */ `SELECT answer, first FROM triphase.store_answer($1, $2, $3, $4)`

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
