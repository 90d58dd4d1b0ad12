import pg from 'pg'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { defineSweep } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 3 })
const name = `sweep_parts_${process.env.TRIPHASE_TEST_POOLED ? 'pooled' : 'direct'}`
const partitions = [`${name}_north`, `${name}_south`]
const sweepOf = (key: string | string[] = ['id', 'region']) =>
  defineSweep<{ id: number; region: string }>({
    name: 'parts',
    table: { name, key },
    concurrency: 6,
    pageSize: 10,
    each: async ({ id, region }) => `${region} ${id}`,
  })

beforeEach(() =>
  pool.query(`DROP TABLE IF EXISTS ${name};
    CREATE TABLE ${name} (id int NOT NULL, region text NOT NULL, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
    CREATE TABLE ${partitions[0]} PARTITION OF ${name} FOR VALUES IN ('north');
    CREATE TABLE ${partitions[1]} PARTITION OF ${name} FOR VALUES IN ('south');
    INSERT INTO ${name} SELECT n, region FROM generate_series(1, 40) n, unnest(ARRAY['north', 'south']) region`),
)
afterAll(async () => {
  await pool.query(`DROP TABLE IF EXISTS ${name}`)
  await pool.end()
})

async function counts(): Promise<Record<string, number>> {
  const { rows } = await pool.query(`SELECT status, count(*)::int AS n FROM ${name} GROUP BY 1 ORDER BY 1`)
  return Object.fromEntries(rows.map(({ status, n }) => [status, n]))
}

test('the migration builds its indexes on each partition, concurrently, and joins them', async () => {
  const control = bench.engine({ tasks: [sweepOf()] }).sweep(sweepOf())
  expect(await control.check()).toContainEqual(
    'no index begins with status (partitioned: tell migration() its partitions)',
  )
  const statements = control.migration({ partitions }).split(';\n')
  for (const statement of statements) await pool.query(statement)
  expect(await control.check()).toEqual([])
  // As often as somebody wishes.
  for (const statement of statements.slice(0, 4)) await pool.query(statement)
  expect(statements.filter((statement) => statement.includes('CONCURRENTLY'))).toHaveLength(4)
})

test('a key must tell records apart in all partitions', async () => {
  const control = bench.engine({ tasks: [sweepOf('id')] }).sweep(sweepOf('id'))
  expect((await control.check()).join()).toContain(
    'no primary key or unique index tells records apart by (id)',
  )
})

// By number first: records in the same place of two partitions are called, and marked, together.
test('records of all partitions are marked; one that is locked holds up none in the same place of another', async () => {
  const sweep = sweepOf()
  const engine = bench.engine({ tasks: [sweep], queues: { default: 3 } })
  const control = engine.sweep(sweep)
  for (const statement of control.migration({ partitions }).split(';\n')) await pool.query(statement)
  const places = await pool.query(`SELECT ctid::text AS place, region FROM ${name} WHERE id = 7`)
  expect(new Set(places.rows.map(({ place }) => place)).size).toBe(1)
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query(`SELECT FROM ${name} WHERE id = 7 AND region = 'south' FOR UPDATE`)
    await engine.start()
    await control.run()
    await eventually(async () => expect(await counts()).toEqual({ done: 79, pending: 1 }))
    await client.query('COMMIT')
  } finally {
    client.release()
  }
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 80, errors: 0, calls: 80 })
  const { rows } = await pool.query(`SELECT FROM ${name} WHERE result <> region || ' ' || id`)
  expect(rows).toEqual([])
})
