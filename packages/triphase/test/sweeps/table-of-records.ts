import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { testUrl } from '../support/database-url.ts'

/** A table of the application, outside the engine's schema. */
export interface RecordsTable {
  readonly name: string
  readonly pool: pg.Pool
  /** Rows 1 to `count`, pending, each with a text of its own. */
  fill(count: number): Promise<void>
  counts(): Promise<Record<string, number>>
  rows<Row = Record<string, unknown>>(condition?: string): Promise<Row[]>
}

/** Gives a test file a table that fits for sweeps. The file may run twice at a time: directly and through a pooler. */
export function useRecords(prefix: string, pool: () => pg.Pool = lazyPool()): RecordsTable {
  const name = `${prefix}_${process.env.TRIPHASE_TEST_POOLED ? 'pooled' : 'direct'}`
  beforeAll(async () => {
    await pool().query(`
      DROP TABLE IF EXISTS ${name};
      CREATE TABLE ${name} (
        id bigint PRIMARY KEY, body text NOT NULL, status text NOT NULL DEFAULT 'pending', result text,
        error_message text);
      CREATE INDEX ON ${name} (status, id);
      CREATE INDEX ON ${name} (id) WHERE status = 'pending'`)
  })
  afterAll(() => pool().end())
  return {
    name,
    get pool() {
      return pool()
    },
    async fill(count) {
      await pool().query(`TRUNCATE ${name}`)
      await pool().query(
        `INSERT INTO ${name} (id, body) SELECT n, 'record ' || n FROM generate_series(1, $1::int) n`,
        [count],
      )
    },
    async counts() {
      const { rows } = await pool().query(
        `SELECT status, count(*)::int AS n FROM ${name} GROUP BY 1 ORDER BY 1`,
      )
      return Object.fromEntries(rows.map((row) => [row.status, row.n]))
    },
    async rows(condition = 'true') {
      return (await pool().query(`SELECT * FROM ${name} WHERE ${condition} ORDER BY id`)).rows
    },
  }
}

function lazyPool(): () => pg.Pool {
  let pool: pg.Pool | undefined
  return () => {
    pool ??= new pg.Pool({ connectionString: testUrl(), max: 3 })
    return pool
  }
}
