import type { Stage } from './stage.ts'

/** Settings with which Postgres counts statements; they cost it something, so only where they are needed. */
export const COUNTING_STATEMENTS: Readonly<Record<string, string>> = {
  shared_preload_libraries: 'pg_stat_statements',
  'pg_stat_statements.track_planning': 'on',
}

/** What the statements of a database did that contain all of some words. */
export interface StatementFigures {
  calls: number
  /** Rows that they returned or wrote. */
  rows: number
  /** Time in the server for planning and running them. */
  serverMs: number
}

const COUNT = `
SELECT coalesce(sum(s.calls), 0)::float8 AS calls, coalesce(sum(s.rows), 0)::float8 AS rows,
       coalesce(sum(s.total_plan_time + s.total_exec_time), 0)::float8 AS "serverMs"
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = $1 AND s.query ILIKE ALL ($2::text[])`

/** Counts from now on. */
export async function countStatements({ server, database }: Stage): Promise<void> {
  await server.control.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements')
  await server.control.query(
    'SELECT pg_stat_statements_reset(0, (SELECT oid FROM pg_database WHERE datname = $1), 0)',
    [database],
  )
}

/** All statements of the stage's database, or those that contain each of the words. */
export async function statementFigures(
  { server, database }: Stage,
  ...words: readonly string[]
): Promise<StatementFigures> {
  const patterns = ['%', ...words.map((word) => `%${word}%`)]
  const { rows } = await server.control.query<StatementFigures>(COUNT, [database, patterns])
  return rows[0] as StatementFigures
}

/** Words by which Triphase's statements are told apart. */
export const CLAIM_WORDS: readonly string[] = ['triphase.claim_jobs(']
export const ACK_WORDS: readonly string[] = ['triphase.finish_jobs(']
