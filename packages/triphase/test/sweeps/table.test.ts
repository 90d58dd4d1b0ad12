import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { z } from 'zod'
import { defineSweep, type SweepTable, TriphaseError } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 3 })

beforeAll(() =>
  pool.query(`DROP SCHEMA IF EXISTS "sweep ""tables""" CASCADE; CREATE SCHEMA "sweep ""tables"""`),
)
beforeEach(() =>
  pool.query(`
    DROP TABLE IF EXISTS "sweep ""tables"""."My Files";
    CREATE TABLE "sweep ""tables"""."My Files" (
      "Tenant" text NOT NULL, name varchar(40) NOT NULL, n int, PRIMARY KEY ("Tenant", name));
    INSERT INTO "sweep ""tables"""."My Files"
    SELECT CASE WHEN n % 2 = 0 THEN 'Äther' ELSE 'b''ar' END, 'file ' || n, n FROM generate_series(1, 60) n`),
)
afterAll(async () => {
  await pool.query(`DROP SCHEMA "sweep ""tables""" CASCADE`)
  await pool.end()
})

const table: SweepTable = {
  name: '"sweep ""tables"""."My Files"',
  key: ['Tenant', 'name'],
  status: 'Step',
  result: 'out come',
  error: 'why',
}

function control(more: Partial<SweepTable> = {}) {
  const sweep = defineSweep({ name: 'files', table: { ...table, ...more }, each: async () => 'fine' })
  return { sweep, control: bench.engine({ tasks: [sweep] }).sweep(sweep) }
}

test('what is missing is named, all of it; the generated SQL adds it', async () => {
  const { sweep, control: files } = control()
  expect(await files.check()).toEqual([
    'column Step is missing',
    'column out come is missing',
    'column why is missing',
    'no index begins with Step',
    "no index on (Tenant, name) WHERE Step = 'pending'",
  ])
  const refused = await files.run().catch((error: unknown) => error)
  expect(refused).toBeInstanceOf(TriphaseError)
  expect(refused).toMatchObject({
    code: 'SWEEP_TABLE',
    message: expect.stringContaining('column why is missing'),
  })

  const engine = bench.engine({ tasks: [sweep], queues: { default: 2 } })
  const warning = engine.telemetry.next('config:warning', ({ message }) => message.startsWith('Sweep'))
  await engine.start()
  expect((await warning).message).toContain('Sweep files cannot run: column Step is missing')

  for (const statement of files.migration().split(';\n')) await pool.query(statement)
  expect(await files.check()).toEqual([])
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', total: 60, done: 60 })
})

test('existing rows are not rewritten', async () => {
  const filenode = async () =>
    (await pool.query('SELECT pg_relation_filenode($1::regclass)', [table.name])).rows
  const before = await filenode()
  const [alter] = control().control.migration().split(';\n')
  await pool.query(alter as string)
  expect(await filenode()).toEqual(before)
})

test('the migration as a file of Kysely, up and down', async () => {
  const { control: files } = control()
  const folder = await mkdtemp(join(import.meta.dirname, '.migration-'))
  const db = new Kysely<unknown>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: testUrl() }) }),
  })
  try {
    const file = join(folder, 'migration.ts')
    await writeFile(file, files.migration({ format: 'kysely' }))
    const migration = await import(pathToFileURL(file).href)
    await migration.up(db)
    expect(await files.check()).toEqual([])
    await migration.down(db)
    expect(await files.check()).toHaveLength(5)
  } finally {
    await db.destroy()
    await rm(folder, { recursive: true })
  }
})

test('a table that is missing is to be created, and not to be changed by the generated SQL', async () => {
  const refused = control({ name: 'sweep_no_such_table' }).control.run()
  await expect(refused).rejects.toThrow(/no table "sweep_no_such_table" that this role can see\. Create it/)
})

test('the migration as files of Knex and Drizzle', async () => {
  const { control: files } = control()
  expect(files.migration({ format: 'knex' })).toContain('export const config = { transaction: false }')
  expect(files.migration({ format: 'drizzle' }).split('--> statement-breakpoint')).toHaveLength(3)
})

test.each<[string, Partial<SweepTable>, string]>([
  ['no such table', { name: 'sweep_no_such_table' }, 'there is no table "sweep_no_such_table"'],
  ['a key that is not unique', { key: 'Tenant' }, 'no primary key or unique index'],
  ['a key with nulls', { key: ['Tenant', 'name', 'n'] }, 'key column n allows NULL'],
])('%s is refused', async (_name, more, fault) => {
  expect((await control(more).control.check()).join('; ')).toContain(fault)
})

test.each<[string, object, string]>([
  ['an unknown option', { tabel: 1 }, 'tabel: there is no such option'],
  ['a table without key', { table: { name: 'files' } }, 'table.key'],
  ['columns that are one', { table: { name: 'files', key: 'id', status: 'id' } }, 'different columns'],
  ['a name with too many dots', { table: { name: 'a.b.c', key: 'id' } }, 'table.name'],
  ['no concurrency', { concurrency: 0 }, 'concurrency'],
  ['a share above 1', { breaker: { share: 2 } }, 'breaker.share'],
])('%s is refused when the sweep is defined', (_name, more, fault) => {
  const define = () =>
    defineSweep({ name: 'bad', table: { name: 'files', key: 'id' }, each: async () => {}, ...more })
  expect(define).toThrow(fault)
})

test('a record that does not fit its schema is marked without a call', async () => {
  await pool.query(`UPDATE ${table.name} SET n = NULL WHERE n = 7`)
  const { control: files } = control()
  for (const statement of files.migration().split(';\n')) await pool.query(statement)
  const called: number[] = []
  const sweep = defineSweep({
    name: 'checked',
    table,
    record: z.object({ n: z.number() }),
    each: async ({ n }) => {
      called.push(n)
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues: { default: 2 } })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 59, errors: 1 })
  expect(called).toHaveLength(59)
  expect(await engine.sweep(sweep).errors()).toMatchObject([
    { key: ["b'ar", 'file 7'], message: expect.stringContaining('does not fit its schema: n: ') },
  ])
})
