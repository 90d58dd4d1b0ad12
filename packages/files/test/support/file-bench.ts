import { randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import type { Engine } from 'triphase'
import { afterAll, beforeAll } from 'vitest'
import { testUrl } from '../../../triphase/test/support/database-url.ts'
import { useEngines } from '../../../triphase/test/support/engines.ts'
import type { FileSweep } from '../../src/index.ts'

/** A folder, a schema for tables of lines, and engines. */
export interface FileBench {
  readonly pool: pg.Pool
  /** Of a table in the test file's schema. */
  table(name: string): string
  /** Writes a file. */
  write(name: string, content: string | Uint8Array): Promise<string>
  path(name: string): string
  read(name: string): Promise<string>
  /** An engine that runs these sweeps; started. */
  start(...sweeps: FileSweep[]): Promise<Engine<pg.PoolClient>>
  /** An engine that only knows of runs. */
  readonly engine: Engine<pg.PoolClient>
  /** Tables in the schema. */
  tables(): Promise<string[]>
}

export function useFiles(): FileBench {
  const engines = useEngines()
  const schema = `files_${randomBytes(5).toString('hex')}`
  let pool: pg.Pool | undefined
  let folder = ''
  beforeAll(async () => {
    pool = new pg.Pool({ connectionString: testUrl(), max: 4 })
    folder = await mkdtemp(path.join(tmpdir(), 'triphase-files-'))
    await pool.query(`CREATE SCHEMA ${schema}`)
  })
  afterAll(async () => {
    await pool?.query(`DROP SCHEMA ${schema} CASCADE`)
    await pool?.end()
    await rm(folder, { recursive: true })
  })
  return {
    get pool() {
      return pool as pg.Pool
    },
    table: (name) => `${schema}.${name}`,
    path: (name) => path.join(folder, name),
    async write(name, content) {
      await writeFile(path.join(folder, name), content)
      return path.join(folder, name)
    },
    read: (name) => readFile(path.join(folder, name), 'utf8'),
    get engine() {
      return engines.engine()
    },
    async start(...sweeps) {
      const engine = engines.engine({ tasks: sweeps, queues: { default: 4 } })
      await engine.start()
      return engine
    },
    async tables() {
      const { rows } = await (pool as pg.Pool).query(
        `SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r' ORDER BY 1`,
        [schema],
      )
      return rows.map(({ relname }) => relname)
    },
  }
}

/** A sweep that answers with what its line has in it. */
export function rowsOf(
  pool: pg.Pool,
  table: string,
): Promise<{ line: number; record: unknown; status: string }[]> {
  return pool.query(`SELECT line::int, record, status FROM ${table} ORDER BY line`).then(({ rows }) => rows)
}
