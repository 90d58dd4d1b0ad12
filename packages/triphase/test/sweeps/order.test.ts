import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { defineSweep, type SweepTable } from '../../src/index.ts'
import { type TableStatements, tableStatements } from '../../src/store/sweep-table.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 3 })
const name = `sweep_order_${process.env.TRIPHASE_TEST_POOLED ? 'pooled' : 'direct'}`
const newestFirst = { by: 'created_at', direction: 'descending' } as const
const table: SweepTable = { name, key: 'id', order: newestFirst }

beforeAll(() =>
  pool.query(`DROP TABLE IF EXISTS ${name};
    CREATE TABLE ${name} (id int PRIMARY KEY, created_at timestamptz NOT NULL, deleted_at timestamptz, shape point NOT NULL)`),
)
beforeEach(() => pool.query(`TRUNCATE ${name}`))
afterAll(async () => {
  await pool.query(`DROP TABLE ${name}`)
  await pool.end()
})

/** Rows with numbers in an order that is neither that of keys nor that of time; five have the same time. */
async function fill(count: number): Promise<void> {
  await pool.query(
    `INSERT INTO ${name} (id, created_at, shape)
     SELECT n, timestamptz '2026-01-01' + ((n * 7919) % $1::int) / 5 * interval '1.000001 seconds', '(0,0)'
     FROM generate_series(1, $1::int) n`,
    [count],
  )
}

async function idsInOrder(): Promise<number[]> {
  const { rows } = await pool.query(`SELECT id FROM ${name} ORDER BY created_at DESC, id DESC`)
  return rows.map(({ id }) => id)
}

/** The table fits for the sweep afterwards. */
async function migrate(more: Partial<SweepTable> = {}): Promise<void> {
  const sweep = defineSweep({ name: 'ordered', table: { ...table, ...more }, each: async () => {} })
  const control = bench.engine({ tasks: [sweep] }).sweep(sweep)
  for (const statement of control.migration().split(';\n')) await pool.query(statement)
  expect(await control.check()).toEqual([])
}

test('records are taken in the order of other columns, all of them once, over pages and ties', async () => {
  await migrate()
  await fill(200)
  const called: number[] = []
  const sweep = defineSweep<{ id: number }>({
    name: 'ordered',
    table,
    concurrency: 1,
    pageSize: 7,
    each: async ({ id }) => {
      called.push(id)
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues: { default: 1 } })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 200, calls: 200 })
  expect(called).toEqual(await idsInOrder())
})

test('a row whose time changes meanwhile is found by a later pass, and called once', async () => {
  await migrate()
  await fill(60)
  const called: number[] = []
  const gate = Promise.withResolvers<void>()
  const sweep = defineSweep<{ id: number }>({
    name: 'moving',
    table,
    concurrency: 1,
    pageSize: 5,
    each: async ({ id }) => {
      called.push(id)
      if (called.length === 20) await gate.promise
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues: { default: 1 } })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  await eventually(() => expect(called).toHaveLength(20))
  // The last of the order becomes its first: the cursor has passed that.
  const last = (await idsInOrder()).at(-1)
  await pool.query(`UPDATE ${name} SET created_at = created_at + interval '1 year' WHERE id = $1`, [last])
  gate.resolve()
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 60, calls: 60 })
  expect(called.at(-1)).toBe(last)
})

test('what keeps a table from being swept in an order is named', async () => {
  const faults = async (order: SweepTable['order']) => {
    const sweep = defineSweep({
      name: 'faulty',
      table: { ...table, order } as SweepTable,
      each: async () => {},
    })
    return (
      await bench
        .engine({ tasks: [sweep] })
        .sweep(sweep)
        .check()
    ).join('; ')
  }
  await migrate()
  expect(await faults(newestFirst)).toBe('')
  expect(await faults({ by: 'deleted_at' })).toContain('order column deleted_at allows NULL')
  expect(await faults({ by: 'shape' })).toContain('order column shape is point')
  expect(await faults({ by: ['nowhere', 'id'] })).toContain('column nowhere is missing')
  expect(await faults({ by: ['created_at', 'shape'] })).toContain('no index on (created_at, shape, id) WHERE')
  await pool.query(`ALTER TABLE ${name} ADD COLUMN rank int NOT NULL DEFAULT 0;
    CREATE INDEX ON ${name} (rank DESC, id) WHERE status = 'pending'`)
  expect(await faults({ by: 'rank' })).toBe(
    "the index on (rank, id) WHERE status = 'pending' has columns in different directions",
  )
  await pool.query(`CREATE INDEX ON ${name} (rank DESC, id DESC) WHERE status = 'pending'`)
  expect(await faults({ by: 'rank' })).toBe('')
})

test.each<[string, unknown]>([
  ['table.order.by', { by: [] }],
  ['table.order.by', { by: ['a', 'a'] }],
  ['table.order.direction', { by: 'a', direction: 'up' }],
  ['table.order.desc: there is no such option', { by: 'a', desc: true }],
  ['table.order', 'up'],
  ['table.order', 7],
])('%s is refused: %j', (fault, order) => {
  const define = () =>
    defineSweep({ name: 'bad', table: { name, key: 'id', order } as SweepTable, each: async () => {} })
  expect(define).toThrow(fault)
})

interface Plan {
  'Node Type': string
  'Index Name'?: string
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  Plans?: Plan[]
}

async function planOf(client: pg.ClientBase, statement: string, values: unknown[]): Promise<Plan> {
  const { rows } = await client.query(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ${statement}`, values)
  return rows[0]['QUERY PLAN'][0].Plan
}

function nodes(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodes)]
}

const COUNT = 50_000

function statementsFor(order: string[], descending: boolean): TableStatements {
  const names = { schema: undefined, table: name, key: ['id'], status: 'status', result: 'result' }
  const shape = { statusType: 'text', resultType: 'text', errorType: 'text', partitioned: false }
  return tableStatements(
    { ...names, error: 'error_message', where: undefined, order, descending },
    {
      ...shape,
      key: [{ name: 'id', type: 'integer' }],
      order: order.map((column) => ({ name: column, type: 'timestamp with time zone' })),
    },
  )
}

test.each<[string, string[], boolean]>([
  ['by key', [], false],
  ['by key, backwards', [], true],
  ['by time, newest first', ['created_at'], true],
])(
  '%s: pages are read from the index, and cost the same after most records are done',
  async (_, order, descending) => {
    await migrate(order.length > 0 ? {} : { order: 'ascending' })
    await fill(COUNT)
    await pool.query(`VACUUM ANALYZE ${name}`)
    const statements = statementsFor(order, descending)
    const client = await pool.connect()
    try {
      const places = await client.query(statements.boundaries, [null, COUNT, 500])
      const [early, late] = [places.rows[0].place, places.rows[98].place]
      const [first, ends] = [
        await planOf(client, statements.pending, [early, null, 500]),
        await planOf(client, statements.boundaries, [early, 5_000, 500]),
      ]
      expect(nodes(first).map((node) => node['Node Type'])).toEqual(['Limit', 'Index Scan'])
      const types = nodes(ends).map((node) => node['Node Type'])
      expect(types).toContain('Index Only Scan')
      // Only the ten ends that are left of it.
      expect(types.slice(types.indexOf('WindowAgg'))).not.toContain('Sort')

      // Everything before is done, and nothing of it has been vacuumed away.
      const keyTypes = [...order.map(() => 'timestamptz'), 'int']
      await client.query(
        `UPDATE ${name} SET status = 'done' WHERE (${[...order, 'id'].join(', ')}) ${descending ? '>=' : '<='}
       (${keyTypes.map((type, index) => `($1::json->>${index})::${type}`).join(', ')})`,
        [late],
      )
      const last = await planOf(client, statements.pending, [late, null, 500])
      // So few may be sorted, and are still found by the index.
      expect(nodes(last).at(-1)).toMatchObject({ 'Index Name': expect.stringContaining('_sweep_pending') })
      expect(blocks(last)).toBeLessThanOrEqual(1.1 * blocks(first))
    } finally {
      client.release()
    }
  },
)

function blocks(plan: Plan): number {
  return plan['Shared Hit Blocks'] + plan['Shared Read Blocks']
}
