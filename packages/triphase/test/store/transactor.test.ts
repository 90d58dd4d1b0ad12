import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import {
  type CreateEngineOptions,
  createEngine,
  defineTask,
  type Engine,
  pgTransactor,
  stagedTasksFor,
  type Transactor,
  unchecked,
} from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { jobIn } from '../support/jobs.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 3 })
beforeAll(() => pool.query(`CREATE TABLE ${table()} (id integer PRIMARY KEY, text text)`))
beforeEach(() => pool.query(`DELETE FROM ${table()}`))
afterAll(async () => {
  await pool.query(`DROP TABLE ${table()}`)
  await pool.end()
})

function table(): string {
  return `${bench.schema.schema}.notes`
}

async function notes(): Promise<string[]> {
  return (await pool.query(`SELECT text FROM ${table()} ORDER BY id`)).rows.map(({ text }) => text)
}

describe('pgTransactor', () => {
  test('commits what resolves and rolls back what rejects', async () => {
    const { transaction } = pgTransactor(pool)
    const insert = (tx: pg.PoolClient, id: number) =>
      tx.query(`INSERT INTO ${table()} VALUES ($1, $2)`, [id, `${id}`])
    expect(await transaction((tx) => insert(tx, 1).then(() => 'value'))).toBe('value')
    await expect(
      transaction(async (tx) => {
        await insert(tx, 2)
        throw new Error('no')
      }),
    ).rejects.toThrow('no')
    expect(await notes()).toEqual(['1'])
    expect(pool.idleCount).toBe(pool.totalCount)
  })

  test('a failed statement that was caught does not pass for a commit', async () => {
    const { transaction } = pgTransactor(pool)
    const committed = transaction(async (tx) => {
      await tx.query(`INSERT INTO ${table()} VALUES (1, 'lost')`)
      await tx.query('SELECT 1 / 0').catch(() => {})
    })
    await expect(committed).rejects.toThrow(/rolled back by the database/)
    expect(await notes()).toEqual([])
  })

  test('a connection that breaks in the middle is not used again, and harms nobody', async () => {
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    const proxied = new pg.Pool({ connectionString: proxy.url(testUrl()), max: 1 })
    proxied.on('error', () => {})
    const { transaction } = pgTransactor(proxied)
    const broken = transaction(async (tx) => {
      proxy.cutAll()
      await eventually(() => proxy.connections === 0)
      await tx.query('SELECT 1')
    })
    await expect(broken).rejects.toThrow()
    expect(await transaction(async (tx) => (await tx.query('SELECT 1 AS one')).rows)).toEqual([{ one: 1 }])
    await proxied.end()
    await proxy.close()
  })

  test('a connection that leads to a server that only reads, since a failover, is not used again', async () => {
    const readers = new pg.Pool({ connectionString: testUrl(), max: 1 })
    const { transaction } = pgTransactor(readers)
    const write = () => transaction((tx) => tx.query(`INSERT INTO ${table()} VALUES (1, 'written')`))
    await readers.query('SET default_transaction_read_only = on')
    await expect(write()).rejects.toMatchObject({ code: '25006' })
    await write()
    expect(await notes()).toEqual(['written'])
    await readers.end()
  })

  test('a connection that does not answer BEGIN is given up, and the next one used', async () => {
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    const proxied = new pg.Pool({
      connectionString: proxy.url(testUrl()),
      max: 1,
      connectionTimeoutMillis: 1_000,
    })
    const { transaction } = pgTransactor(proxied)
    const one = () => transaction(async (tx) => (await tx.query('SELECT 1 AS one')).rows)
    await one()
    const begin = proxy.onStatement(/^BEGIN/, 'hold-before')
    await expect(one()).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(/did not answer BEGIN within 1000 ms.*a network that drops packets/),
    })
    expect(begin.hits).toBe(1)
    expect(await one()).toEqual([{ one: 1 }])
    await proxied.end()
    await proxy.close()
  })

  test('a pool to whose errors nobody listens loses its idle connections, and the process goes on', async () => {
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    const proxied = new pg.Pool({ connectionString: proxy.url(testUrl()), max: 1 })
    const { transaction } = pgTransactor(proxied)
    const one = () => transaction(async (tx) => (await tx.query('SELECT 1 AS one')).rows)
    await one()
    proxy.cutAll()
    await eventually(() => proxied.totalCount === 0)
    expect(await one()).toEqual([{ one: 1 }])
    await proxied.end()
    await proxy.close()
  })
})

/** What a transaction is to some other library: not a client, but an object of its own. */
class Unit {
  readonly #client: pg.PoolClient
  readonly written: number[] = []

  constructor(client: pg.PoolClient) {
    this.#client = client
  }

  async insert(id: number, text: string): Promise<void> {
    await this.#client.query(`INSERT INTO ${table()} VALUES ($1, $2)`, [id, text])
    this.written.push(id)
  }

  raw(text: string, values: readonly unknown[]): Promise<{ rows: unknown[] }> {
    return this.#client.query(text, [...values])
  }
}

const units: Transactor<Unit> = {
  async transaction(work) {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      const value = await work(new Unit(client))
      await client.query('COMMIT')
      return value
    } catch (error) {
      await client.query('ROLLBACK')
      throw error
    } finally {
      client.release()
    }
  },
  execute: (unit, text, values) => unit.raw(text, values),
}

describe('a transactor for another library', () => {
  const keep = stagedTasksFor<Unit>()({
    name: 'keep',
    input: unchecked<{ id: number }>(),
    prepare: async ({ tx, input }) => {
      await tx.insert(input.id, 'prepared')
      return { id: input.id }
    },
    call: async ({ prepared, query }) => {
      const { rows } = await query(`SELECT text FROM ${table()} WHERE id = $1`, [prepared.id])
      return rows as { text: string }[]
    },
    commit: async ({ tx, prepared, answer }) => {
      await tx.insert(prepared.id + 1, `${answer[0]!.text} and committed`)
      return tx.written
    },
  })
  const plain = defineTask({ name: 'plain', input: unchecked<null>(), run: () => 'ran' })

  async function withEngine(work: (engine: Engine<Unit>) => Promise<void>): Promise<void> {
    const { url, schema } = bench.schema
    const options: CreateEngineOptions<Unit> = { url, schema, tasks: [keep, plain], queues: { default: 2 } }
    const engine = createEngine({ ...options, transactor: units })
    try {
      await engine.start()
      await work(engine)
    } finally {
      await engine.stop({ graceMs: 0 })
    }
  }

  test('carries enqueues: they exist exactly if it commits', async () => {
    await withEngine(async (engine) => {
      const { id } = await engine.transaction(async (tx) => {
        await tx.insert(1, 'with a job')
        return engine.enqueue(plain, null, { tx, tags: ['a', '"b"'], uniqueKey: 'k' })
      })
      expect(await jobIn(engine, id, 'completed')).toMatchObject({ tags: ['a', '"b"'] })
      let gone = ''
      const failed = engine.transaction(async (tx) => {
        gone = (await engine.enqueue(plain, null, { tx })).id
        throw new Error('no')
      })
      await expect(failed).rejects.toThrow('no')
      expect(await engine.job(gone)).toBeNull()
      expect(await notes()).toEqual(['with a job'])
    })
  })

  test('carries the phases and the ack of staged tasks', async () => {
    await withEngine(async (engine) => {
      const completed = engine.telemetry.next('job:completed')
      const { id } = await engine.enqueue(keep, { id: 1 })
      expect(await jobIn(engine, id, 'completed')).toMatchObject({ result: [2], attempt: 1 })
      expect(await notes()).toEqual(['prepared', 'prepared and committed'])
      // Without a query of its own, one outside a transaction is a transaction of one statement.
      expect((await completed).ledger).toMatchObject({ checkouts: 3 })
    })
  })

  test('needs no pool of the engine', async () => {
    await withEngine(async (engine) => {
      expect(engine.connections().application).toMatchObject({ size: null, open: null, inUse: 0 })
    })
  })
})

test('a role that may not write the completion is told which grants it lacks', async () => {
  const { url, schema } = bench.schema
  const role = `${schema}_ordinary`
  await pool.query(`CREATE ROLE ${role}`)
  const own = pgTransactor(pool)
  const transactor: Transactor<pg.PoolClient> = {
    ...own,
    transaction: (work) =>
      own.transaction(async (tx) => {
        await tx.query(`SET LOCAL ROLE ${role}`)
        return work(tx)
      }),
  }
  const task = stagedTasksFor<pg.PoolClient>()({
    name: 'task',
    input: unchecked<null>(),
    prepare: async () => null,
    call: async () => 'answer',
    commit: async () => null,
  })
  const engine = createEngine({ url, schema, tasks: [task], queues: { default: 1 }, transactor })
  try {
    await engine.start()
    const retried = engine.telemetry.next('job:retried')
    await engine.enqueue(task, null)
    expect((await retried).error).toMatchObject({
      code: 'NO_PERMISSION',
      message: expect.stringMatching(/Grant the role USAGE on the schema/),
    })
  } finally {
    await engine.stop({ graceMs: 0 })
    await pool.query(`DROP ROLE ${role}`)
  }
})
