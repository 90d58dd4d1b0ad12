import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import pg from 'pg'
import type { SweepControl } from 'triphase'
import { defineSweep } from 'triphase'
import { afterAll, afterEach, beforeAll } from 'vitest'
import { type LocalCountingApi, startCountingApi } from '../../../triphase/test/support/counting-api.ts'
import { testDatabaseUrl } from '../../../triphase/test/support/database-url.ts'
import { useEngines } from '../../../triphase/test/support/engines.ts'
import { CliProcess, type Ending } from './cli-process.ts'

/** The config of the tests: a sweep whose calls are counted, and, where they are asked for, two that cannot work, or one over a file. */
const CONFIG = `
import pg from 'pg'
import { createEngine, defineSweep, Permanent, type Sweep } from 'triphase'

const { TEST_URL, TEST_DIRECT_URL, TEST_SCHEMA, TEST_TABLE, TEST_API, TEST_QUEUES, TEST_GRACE, TEST_MORE, TEST_POOL } = process.env
const describe = defineSweep({
  name: 'describe',
  table: { name: TEST_TABLE!, key: 'id' },
  concurrency: 4,
  pageSize: 20,
  retries: 0,
  breaker: { inRow: 6 },
  async each(record: { id: unknown }, { signal, idempotencyKey, spend }) {
    const body = JSON.stringify({ key: String(record.id) })
    const headers = { 'idempotency-key': idempotencyKey }
    const response = await fetch(TEST_API + '/call', { method: 'POST', headers, body, signal })
    spend(0.5)
    if (response.status === 422) throw new Permanent('record ' + record.id + ' cannot be read')
    if (!response.ok) throw new Error('answered ' + response.status)
    return ((await response.json()) as { answer: string }).answer
  },
})
const misfit = defineSweep({ name: 'misfit', table: { name: TEST_TABLE + '_missing', key: 'id' }, each: async () => null })
const broken = defineSweep({ name: 'broken', table: { name: TEST_TABLE!, key: 'id', where: 'no_such_column' }, each: async () => null })
const tasks: Sweep[] = [describe]
if (TEST_MORE === 'misfits') tasks.push(misfit, broken)
if (TEST_MORE === 'files') {
  const { defineFileSweep } = await import('@triphase/files')
  const classify = defineFileSweep<{ id: string; text: string }>({
    name: 'classify',
    table: TEST_TABLE + '_lines',
    async each({ text }) {
      if (text === '') throw new Permanent('there is no text')
      return text.toUpperCase()
    },
  })
  tasks.push(classify)
}
export const pool = TEST_POOL === 'none' ? undefined : new pg.Pool({ connectionString: TEST_DIRECT_URL!, max: 2 })
export default createEngine({
  url: TEST_URL!,
  directUrl: TEST_DIRECT_URL!,
  schema: TEST_SCHEMA!,
  heartbeat: '200ms',
  deadAfter: '2s',
  grace: (TEST_GRACE ?? '25s') as '25s',
  engine: { size: 3 },
  application: { size: 3 },
  tasks,
  queues: TEST_QUEUES === 'none' ? {} : { default: 4 },
})
`

export interface Scene {
  readonly folder: string
  readonly api: LocalCountingApi
  readonly table: string
  readonly pool: pg.Pool
  readonly schema: string
  /** The sweep, seen from this process. */
  readonly control: SweepControl
  /** Records 1 to `count`, pending. */
  fill(count: number): Promise<void>
  counts(): Promise<Record<string, number>>
  /** Starts the program in the folder of the config file. */
  start(
    args: readonly string[],
    more?: { env?: Record<string, string>; through?: readonly string[] },
  ): CliProcess
  /** Runs it to its end. */
  run(...args: readonly string[]): Promise<Ending>
  /** Runs it with `--json`, and reads the one value that it prints. */
  json(...args: readonly string[]): Promise<{ code: number | null; value: Record<string, unknown> }>
}

/** A folder in which modules of this repository are found. */
export function projectFolder(): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'triphase-cli-'))
  symlinkSync(path.join(import.meta.dirname, '../../../../node_modules'), path.join(folder, 'node_modules'))
  writeFileSync(path.join(folder, 'package.json'), '{ "type": "module" }')
  return folder
}

/** Gives a test file a schema, a table, an API that counts, and a folder with a config file. */
export function useScene(name: string, { more = '' }: { more?: '' | 'misfits' | 'files' } = {}): Scene {
  const bench = useEngines()
  const table = `cli_${name}_records`
  const pool = new pg.Pool({ connectionString: testDatabaseUrl(), max: 2 })
  const processes: CliProcess[] = []
  let api: LocalCountingApi
  let folder = ''
  const environment = () => ({
    TEST_URL: bench.schema.url,
    TEST_DIRECT_URL: testDatabaseUrl(),
    TEST_SCHEMA: bench.schema.schema,
    TEST_TABLE: table,
    TEST_API: api.url,
    TEST_MORE: more,
  })
  beforeAll(async () => {
    folder = projectFolder()
    writeFileSync(path.join(folder, 'triphase.config.ts'), CONFIG)
    api = await startCountingApi()
    await pool.query(`
      DROP TABLE IF EXISTS ${table};
      CREATE TABLE ${table} (
        id bigint PRIMARY KEY, status text NOT NULL DEFAULT 'pending', result text, error_message text);
      CREATE INDEX ON ${table} (status, id);
      CREATE INDEX ON ${table} (id) WHERE status = 'pending'`)
  })
  afterEach(async () => {
    await Promise.all(processes.splice(0).map((one) => one.kill()))
    api.reset()
  })
  afterAll(async () => {
    await pool.query(`DROP TABLE IF EXISTS ${table}_lines`)
    await pool.end()
    await api.close()
    rmSync(folder, { recursive: true, force: true })
  })
  return {
    table,
    pool,
    get folder() {
      return folder
    },
    get api() {
      return api
    },
    get schema() {
      return bench.schema.schema
    },
    get control() {
      const sweep = defineSweep({
        name: 'describe',
        table: { name: table, key: 'id' },
        each: async () => null,
      })
      return bench.engine({ tasks: [sweep] }).sweep(sweep)
    },
    async fill(count) {
      await pool.query(`TRUNCATE ${table}`)
      await pool.query(`INSERT INTO ${table} (id) SELECT n FROM generate_series(1, $1::int) n`, [count])
    },
    async counts() {
      const { rows } = await pool.query(
        `SELECT status, count(*)::int AS n FROM ${table} GROUP BY 1 ORDER BY 1`,
      )
      return Object.fromEntries(rows.map((row) => [row.status, row.n]))
    },
    start(args, { env = {}, through } = {}) {
      const options = { cwd: folder, env: { ...environment(), ...env }, ...(through ? { through } : {}) }
      const one = new CliProcess(args, options)
      processes.push(one)
      return one
    },
    run(...args) {
      return this.start(args).ended
    },
    async json(...args) {
      const { code, stdout, stderr } = await this.run(...args, '--json')
      const lines = stdout.trimEnd().split('\n')
      if (lines.length !== 1 || stdout === '') throw new Error(`not one JSON value:\n${stdout}${stderr}`)
      return { code, value: JSON.parse(stdout) }
    },
  }
}
