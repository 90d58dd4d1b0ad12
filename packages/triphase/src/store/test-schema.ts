import type pg from 'pg'
import type { Database } from './database.ts'

const TABLES = [
  'job',
  'job_history',
  'job_attempt',
  'job_unique',
  'answer',
  'cancel_request',
  'process',
  'queue',
  'leader',
  'sweep_run',
  'sweep_page',
  'sweep_record_try',
] as const

/** Deletes every row of the schema, job by job history and all. For tests: DELETE of few rows is ten times faster than TRUNCATE. */
export async function deleteEverything(database: Database): Promise<void> {
  for (const table of TABLES) await database.query(`DELETE FROM triphase.${table}`)
}

const HOLD = /* sql */ `SELECT pg_try_advisory_lock(hashtext($1), hashtext(current_database())) AS free`

/** Holds a schema for tests, on a connection that is not pooled, until that connection ends; false when it is taken. */
export async function holdSchema(holder: pg.Client, schema: string): Promise<boolean> {
  const { rows } = await holder.query(HOLD, [schema])
  return rows[0].free
}
