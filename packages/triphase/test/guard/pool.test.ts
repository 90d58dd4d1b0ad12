import { setTimeout as delay } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { GuardOptions } from '../../src/guard/index.ts'
import { guard, guardTransactions } from '../../src/guard/index.ts'
import type { Transactor } from '../../src/index.ts'
import { createEngine } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useScene } from './scene.ts'

const scene = useScene()

function guardedPool(options: GuardOptions = {}, config: pg.PoolConfig = {}): pg.Pool {
  const pool = guard(new pg.Pool({ connectionString: testUrl(), max: 2, ...config }), options)
  onTestFinished(() => pool.end())
  return pool
}

async function withClient<Value>(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<Value>,
): Promise<Value> {
  const client = await pool.connect()
  try {
    return await work(client)
  } finally {
    client.release()
  }
}

const REFUSED = { code: 'CALL_IN_TRANSACTION' }

test('a guarded pool is the pool that it was', async () => {
  const bare = new pg.Pool({ connectionString: testUrl(), max: 1 })
  onTestFinished(() => bare.end())
  const events: string[] = []
  for (const name of ['connect', 'acquire', 'release'] as const) bare.on(name, () => events.push(name))
  const pool = guard(bare)
  expect(pool).toBe(bare)
  expect(guard(pool)).toBe(pool)
  expect(pool).toBeInstanceOf(pg.Pool)
  expect((await pool.query('SELECT $1::int AS one', [1])).rows).toEqual([{ one: 1 }])
  expect(
    await new Promise((resolve) => pool.query('SELECT 2 AS two', (_e, { rows }) => resolve(rows))),
  ).toEqual([{ two: 2 }])
  await withClient(pool, async (client) => {
    expect(client).toBeInstanceOf(pg.Client)
    const prepared = { name: 'three', text: 'SELECT 3 AS three', rowMode: 'array' }
    expect((await client.query(prepared)).rows).toEqual([[3]])
    const submitted = client.query(new pg.Query('SELECT 4 AS four'))
    expect(await new Promise((resolve) => submitted.on('row', resolve))).toEqual({ four: 4 })
  })
  await expect(pool.query('SELECT nonsense')).rejects.toThrow('nonsense')
  expect(events).toEqual(['connect', ...Array(4).fill(['acquire', 'release']).flat()])
})

test.each([
  ['BEGIN', 'COMMIT'],
  ['  begin isolation level serializable', 'end;'],
  ['-- a comment\nSTART TRANSACTION READ WRITE', '/* at last */ commit work'],
  [{ text: 'begin' }, { text: 'commit' }],
  ['BEGIN', "INSERT INTO pg_temp.t VALUES (';'); COMMIT"],
])('%j … %j is a transaction', async (begin, commit) => {
  const pool = guardedPool()
  await withClient(pool, async (client) => {
    await client.query('CREATE TEMP TABLE t (x text)')
    await client.query(begin as string)
    await scene.mark(client)
    await fetch(scene.url)
    await expect(client.query(commit as string)).rejects.toMatchObject(REFUSED)
    // Over: the client is free for the next.
    await client.query('BEGIN')
    await scene.mark(client)
    await client.query('COMMIT')
  })
  expect(await scene.marks()).toEqual(['mark'])
})

test.each(['ROLLBACK', 'abort', 'Rollback Transaction'])('%s ends a transaction', async (rollback) => {
  await withClient(guardedPool(), async (client) => {
    await client.query('BEGIN')
    await fetch(scene.url)
    await client.query(rollback)
    await fetch(scene.url)
    await client.query('COMMIT')
  })
  expect(scene.reports).toEqual([expect.stringContaining(`GET ${scene.host}`)])
})

test.each(['SAVEPOINT a', 'ROLLBACK TO a', 'rollback work to savepoint a', 'RELEASE a'])(
  '%s does not',
  async (statement) => {
    await withClient(guardedPool(), async (client) => {
      await client.query('BEGIN; SAVEPOINT a')
      await client.query(statement)
      await fetch(scene.url)
      await expect(client.query('COMMIT')).rejects.toMatchObject(REFUSED)
    })
  },
)

test('a client that is given back in the middle of a transaction blames nobody afterwards', async () => {
  const pool = guardedPool({}, { max: 1 })
  const client = await pool.connect()
  await client.query('BEGIN')
  client.release(true)
  await withClient(pool, async (next) => {
    await fetch(scene.url)
    await next.query('BEGIN')
    await next.query('COMMIT')
  })
})

test('a BEGIN that fails opens nothing', async () => {
  await withClient(guardedPool(), async (client) => {
    await expect(client.query('BEGIN nonsense')).rejects.toThrow('nonsense')
    await fetch(scene.url)
    await client.query('BEGIN')
    await client.query('COMMIT')
  })
})

test('two transactions on one guarded pool: only the one that calls is refused', async () => {
  const pool = guardedPool()
  const transaction = (work: () => Promise<unknown>) =>
    withClient(pool, async (client) => {
      await client.query('BEGIN')
      await work()
      await client.query('COMMIT')
    })
  // Clients that are idle are handed out at once: both begin in the same moment.
  await Promise.all([pool.query('SELECT 1'), pool.query('SELECT 1')])
  const [innocent, calling, beside] = await Promise.allSettled([
    transaction(() => delay(20)),
    transaction(() => fetch(scene.url)),
    fetch(scene.url).then(() => pool.query('SELECT 1')),
  ])
  expect([innocent.status, beside.status]).toEqual(['fulfilled', 'fulfilled'])
  expect(calling).toMatchObject({ status: 'rejected', reason: REFUSED })
})

test('clients from before, which begin without an await: only the one that calls is refused', async () => {
  const pool = guardedPool()
  const clients = [await pool.connect(), await pool.connect()] as const
  const transaction = async (client: pg.PoolClient, work: () => Promise<unknown>) => {
    await client.query('BEGIN')
    await work()
    await client.query('COMMIT')
  }
  const [innocent, calling] = await Promise.allSettled([
    transaction(clients[0], () => delay(20)),
    transaction(clients[1], () => fetch(scene.url)),
  ])
  for (const client of clients) client.release()
  expect(innocent.status).toBe('fulfilled')
  expect(calling).toMatchObject({ status: 'rejected', reason: REFUSED })
})

test('mode warn: a warning of the process', async () => {
  await withClient(guardedPool({ mode: 'warn' }), async (client) => {
    for (let turn = 0; turn < 2; turn++) {
      await client.query('BEGIN')
      await scene.mark(client)
      await fetch(scene.url)
      await client.query('COMMIT')
    }
  })
  expect(await scene.marks()).toHaveLength(2)
  await new Promise((resolve) => setImmediate(resolve))
  expect(scene.reports).toEqual([expect.stringContaining(`GET ${scene.host} was called`)])
})

test('maxHold and allow of a pool', async () => {
  await withClient(guardedPool({ maxHold: 30, allow: [scene.host] }), async (client) => {
    await client.query('BEGIN')
    await fetch(scene.url)
    await client.query('COMMIT')
    await client.query('BEGIN')
    await client.query('SELECT pg_sleep(0.05)')
    await client.query('COMMIT')
  })
  await new Promise((resolve) => setImmediate(resolve))
  expect(scene.reports).toEqual([expect.stringContaining('open for more than 30 ms')])
})

test('faults of the options are named', () => {
  const options = { mode: 'loud', maxHold: 'long', allow: 'host', maxhold: 1 }
  expect(() => guard(scene.pool, options as never)).toThrow(
    /maxhold: there is no such option.*mode: .*allow: .*maxHold: /,
  )
})

describe('an engine, Drizzle and a pool, each with a guard', () => {
  function throughAll(ofEngine: GuardOptions, ofOthers: GuardOptions) {
    const db = guardTransactions(drizzle(guardedPool(ofOthers)), ofOthers)
    type Tx = Parameters<Parameters<typeof db.transaction>[0]>[0]
    const transactor: Transactor<Tx> = {
      transaction: (work) => db.transaction(work),
      execute: async () => ({ rows: [] }),
    }
    const { url, schema } = scene.bench.schema
    const engine = createEngine<Tx>({ url, schema, transactor, guard: ofEngine })
    onTestFinished(() => engine.stop())
    return engine
  }

  test('refuse one transaction once', async () => {
    const failing = throughAll({}, {}).transaction(async (tx) => {
      await tx.execute(sql.raw(`INSERT INTO ${scene.table} VALUES ('mark')`))
      await fetch(scene.url)
    })
    await expect(failing).rejects.toMatchObject(REFUSED)
    expect(await scene.marks()).toEqual([])
    await new Promise((resolve) => setImmediate(resolve))
    expect(scene.reports).toEqual([])
  })

  test("go by the engine's settings", async () => {
    const engine = throughAll({ allow: [scene.host], maxHold: false }, { maxHold: 20 })
    await engine.transaction(async (tx) => {
      await tx.execute(sql`SELECT pg_sleep(0.03)`)
      await fetch(scene.url)
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect(scene.reports).toEqual([])
  })
})

test("a statement beside Drizzle's transaction is a second checkout", async () => {
  const db = guardTransactions(drizzle(guardedPool()))
  const failing = db.transaction(async () => {
    await db.execute(sql`SELECT 1`)
  })
  await expect(failing).rejects.toMatchObject({ code: 'SECOND_CHECKOUT' })
})
