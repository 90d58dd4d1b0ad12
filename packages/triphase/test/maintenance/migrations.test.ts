import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  type CreateEngineOptions,
  createEngine,
  defineTask,
  type Engine,
  migrationSql,
  SCHEMA_VERSION,
  unchecked,
} from '../../src/index.ts'
import { spawnEngine } from '../liveness/worker-processes.ts'
import { isPooled, testUrl } from '../support/database-url.ts'
import { killWorkers } from '../support/processes.ts'

const pool = new pg.Pool({ connectionString: testUrl(), max: 2 })
const schemas: string[] = []
const engines: Engine<pg.PoolClient>[] = []
const ALL = Array.from({ length: SCHEMA_VERSION }, (_, index) => index + 1)

/** The name of a schema that does not exist yet. */
function newSchema(): string {
  const name = `migrations_${randomBytes(4).toString('hex')}`
  schemas.push(name)
  return name
}

function engineOn(
  schema: string,
  options: Partial<CreateEngineOptions<pg.PoolClient>> = {},
): Engine<pg.PoolClient> {
  const engine = createEngine({ url: testUrl(), schema, engine: { size: 3 }, ...options })
  engines.push(engine)
  return engine
}

afterEach(async () => {
  await killWorkers()
  await Promise.all(engines.splice(0).map((engine) => engine.stop({ graceMs: 0 })))
  for (const schema of schemas.splice(0)) await pool.query(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`)
})
afterAll(() => pool.end())

const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: () => 'done' })

async function expectToWork(schema: string): Promise<void> {
  const engine = engineOn(schema, { tasks: [task], queues: { default: 1 } })
  await engine.start()
  const completed = engine.telemetry.next('job:completed')
  await engine.enqueue(task, {})
  expect(await completed).toMatchObject({ result: 'done' })
}

/** Everything that migrations make, in terms that do not name the schema. Partitions by time are not among it. */
async function structureOf(schema: string): Promise<unknown> {
  const relations = `SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = $1::regnamespace AND NOT c.relispartition`
  const sql = [
    `SELECT r.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
     FROM (${relations}) r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
     LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum ORDER BY r.relname, a.attnum`,
    `SELECT r.relname, k.conname, pg_get_constraintdef(k.oid) FROM (${relations}) r
     JOIN pg_constraint k ON k.conrelid = r.oid ORDER BY 1, 2`,
    `SELECT r.relname, pg_get_indexdef(i.indexrelid) FROM (${relations}) r JOIN pg_index i ON i.indexrelid = r.oid ORDER BY 1`,
    `SELECT c.relname, c.relkind, c.reloptions, pg_get_partkeydef(c.oid) FROM (${relations}) r
     JOIN pg_class c ON c.oid = r.oid ORDER BY 1`,
  ]
  const found = await Promise.all(sql.map((one) => pool.query(one, [schema])))
  return JSON.parse(JSON.stringify(found.map(({ rows }) => rows)).replaceAll(schema, 'SCHEMA'))
}

describe('migrate', () => {
  test('of several processes that start on an empty database, each migration is applied by one', async () => {
    const schema = newSchema()
    const processes = [1, 2, 3].map(() =>
      spawnEngine({ url: testUrl(), schema, mode: 'migrate', migrate: true }),
    )
    const applied = await Promise.all(processes.map((process) => process.event('migrated')))
    expect(applied.flat().sort()).toEqual(ALL)
    for (const process of processes) expect(await process.exited).toEqual({ code: 0, signal: null })
    await expectToWork(schema)
  })

  test('does nothing the second time', async () => {
    const schema = newSchema()
    expect(await engineOn(schema).migrate()).toEqual(ALL)
    const before = await structureOf(schema)
    expect(await engineOn(schema).migrate()).toEqual([])
    expect(await structureOf(schema)).toEqual(before)
  })

  test('makes several schemas in one database, which know nothing of each other', async () => {
    const [one, other] = [newSchema(), newSchema()]
    await Promise.all([engineOn(one).migrate(), engineOn(other).migrate()])
    const { id } = await engineOn(one).enqueue(task, {})
    expect(await engineOn(one).job(id)).not.toBeNull()
    expect(await engineOn(other).job(id)).toBeNull()
    await expectToWork(other)
    expect((await engineOn(one).job(id))?.state).toBe('available')
  })

  test('makes a schema whose name is a word of SQL, and an engine works with it', async () => {
    // The two runs of the tests share a database.
    const [migrated, printed] = isPooled() ? (['order', 'all'] as const) : (['user', 'select'] as const)
    schemas.push(migrated, printed)
    expect(await engineOn(migrated).migrate()).toEqual(ALL)
    await expectToWork(migrated)
    await pool.query(migrationSql({ schema: printed }))
    await expectToWork(printed)
  })

  test('uses a schema that an administrator has made, with no right to make one', async () => {
    const schema = newSchema()
    const role = `owner_${schema}`
    await pool.query(`CREATE ROLE ${role} LOGIN PASSWORD 'owner'`)
    await pool.query(`CREATE SCHEMA ${schema} AUTHORIZATION ${role}`)
    const url = new URL(testUrl())
    url.username = role
    url.password = 'owner'
    const engine = engineOn(schema, { url: url.href })
    expect(await engine.migrate()).toEqual(ALL)
    await engine.stop()
    await pool.query(`DROP OWNED BY ${role}`)
    await pool.query(`DROP ROLE ${role}`)
  })
})

describe('migrationSql', () => {
  test.each(['Mixed', 'a"b', 'a$&b', ''])('refuses the schema %j, which no engine can have', (schema) => {
    expect(() => migrationSql({ schema })).toThrow(/^schema: a lower-case letter/)
  })

  test('makes what migrate makes, and an engine works with it', async () => {
    const [migrated, printed] = [newSchema(), newSchema()]
    await engineOn(migrated).migrate()
    await pool.query(migrationSql({ schema: printed }))
    expect(await structureOf(printed)).toEqual(await structureOf(migrated))
    expect(await engineOn(printed).migrate()).toEqual([])
    await expectToWork(printed)
  })

  test('works before any migrate() has made partitions', async () => {
    const schema = newSchema()
    await pool.query(migrationSql({ schema }))
    await expectToWork(schema)
  })

  test('is one transaction: where it fails it leaves nothing', async () => {
    const schema = newSchema()
    const broken = migrationSql({ schema }).replace('COMMIT;', 'SELECT 1 / 0; COMMIT;')
    const client = new pg.Client({ connectionString: testUrl() })
    await client.connect()
    await expect(client.query(broken)).rejects.toThrow('division by zero')
    await client.end()
    expect((await pool.query(`SELECT FROM pg_namespace WHERE nspname = $1`, [schema])).rowCount).toBe(0)
  })

  test('from a version on has only what comes after it', () => {
    const sql = migrationSql({ schema: 'some_schema', after: SCHEMA_VERSION })
    expect(sql).not.toMatch(/CREATE/)
    expect(migrationSql()).toMatch(/CREATE SCHEMA .*CREATE TABLE triphase\.job\b/s)
  })
})

describe('a schema of another version', () => {
  let schema: string
  beforeEach(async () => {
    schema = newSchema()
    await engineOn(schema).migrate()
  })

  /** What a later version would have written into the ledger. */
  async function laterMigration(version: number, minCompatible: number): Promise<void> {
    await pool.query(
      `INSERT INTO ${schema}.migration (version, name, min_compatible) VALUES ($1, 'later', $2)`,
      [version, minCompatible],
    )
  }

  test('newer, and compatible: works, so that old and new processes run side by side', async () => {
    await laterMigration(SCHEMA_VERSION + 1, SCHEMA_VERSION)
    expect(await engineOn(schema).migrate()).toEqual([])
    await expectToWork(schema)
  })

  test('newer, and not compatible: is refused, with both versions named', async () => {
    await laterMigration(SCHEMA_VERSION + 1, SCHEMA_VERSION)
    await laterMigration(SCHEMA_VERSION + 2, SCHEMA_VERSION + 2)
    await laterMigration(SCHEMA_VERSION + 3, SCHEMA_VERSION)
    const error = {
      code: 'SCHEMA_TOO_NEW',
      message: expect.stringMatching(
        new RegExp(
          `${schema}.*version ${SCHEMA_VERSION + 3}.*version ${SCHEMA_VERSION + 2} or later.*knows ${SCHEMA_VERSION}`,
        ),
      ),
    }
    await expect(engineOn(schema).start()).rejects.toMatchObject(error)
    await expect(engineOn(schema).migrate()).rejects.toMatchObject(error)
  })

  test('older, or not there at all: is refused, with the remedy', async () => {
    await pool.query(`DELETE FROM ${schema}.migration`)
    const error = {
      code: 'MIGRATION_NEEDED',
      message: expect.stringMatching(/at version 0.*engine\.migrate\(\).*migrationSql\(\)/),
    }
    await expect(engineOn(schema).start()).rejects.toMatchObject(error)
    await expect(engineOn(newSchema()).start()).rejects.toMatchObject(error)
  })
})
