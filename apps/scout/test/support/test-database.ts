import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import type { WhenFinished } from './temporary-folder.ts'

/** A database of its own for one test. */
export interface TestDatabase {
  readonly url: string
  readonly pool: pg.Pool
  /** All captures with their analyses, by name. */
  analyses(): Promise<AnalysisRow[]>
  /** Ids of the jobs whose call need not be made again: its answer is stored, or the analysis completed. */
  answeredJobs(): Promise<string[]>
  /** Resolves when no connection of Scout is left, so that what a killed process had sent is done or undone. */
  sessionsEnded(): Promise<void>
}

export interface AnalysisRow {
  file_name: string
  job_id: string
  object_key: string
  status: string | null
  error_code: string | null
  error: string | null
  analyses: number
  observations: { label: string; text: string | null; confidence: number | null }[]
}

const ANALYSES = `
SELECT c.file_name, c.job_id, c.object_key, max(a.status) AS status, max(a.error_code) AS error_code,
       max(a.error) AS error, count(DISTINCT a.id)::int AS analyses,
       coalesce(json_agg(json_build_object('label', o.label, 'text', o.text, 'confidence', o.confidence)
                         ORDER BY o.position) FILTER (WHERE o.id IS NOT NULL), '[]') AS observations
FROM scout.capture c LEFT JOIN scout.analysis a ON a.capture_id = c.id
LEFT JOIN scout.observation o ON o.analysis_id = a.id
GROUP BY c.id ORDER BY c.file_name`

const ANSWERED = `
SELECT job_id::text FROM triphase.answer
UNION SELECT c.job_id::text FROM scout.capture c JOIN scout.analysis a ON a.capture_id = c.id WHERE a.status = 'completed'`

const SESSIONS = `
SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'scout%'`

/** A new, empty database on the tests' server, dropped after the test. */
export async function testDatabase(whenFinished: WhenFinished): Promise<TestDatabase> {
  const serverUrl = process.env.TRIPHASE_TEST_URL!
  const name = `scout_${randomBytes(5).toString('hex')}`
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  await administer(serverUrl, `CREATE DATABASE ${name}`)
  const pool = new pg.Pool({ connectionString: url.href, max: 2, application_name: 'test' })
  whenFinished(async () => {
    await pool.end()
    // Not by force: the tests' own clients would hear of it as an error that nobody expects.
    // The server writes a checkpoint first.
    await eventually(() => administer(serverUrl, `DROP DATABASE ${name}`), { timeout: 40_000 })
  })
  const rows = async <Row extends object>(sql: string) => (await pool.query<Row>(sql)).rows
  return {
    url: url.href,
    pool,
    analyses: () => rows<AnalysisRow>(ANALYSES),
    answeredJobs: async () => (await rows<{ job_id: string }>(ANSWERED)).map(({ job_id }) => job_id),
    sessionsEnded: async () => {
      await eventually(async () => (await pool.query(SESSIONS)).rowCount === 0)
    },
  }
}

async function administer(serverUrl: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: serverUrl })
  await client.connect()
  await client.query(statement)
  await client.end()
}
