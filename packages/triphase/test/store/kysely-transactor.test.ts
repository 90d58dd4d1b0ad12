import { CompiledQuery, Kysely, PostgresDialect, sql, type Transaction } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import {
  createEngine,
  defineTask,
  type Engine,
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

interface Tables {
  images: { id: string; description: string | null; status: string }
}

const kysely = new Kysely<Tables>({
  dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: testUrl(), max: 3 }) }),
})
// One schema for a test file: what the application would have as its search path.
const tables = () => kysely.withSchema(bench.schema.schema)

const transactor: Transactor<Transaction<Tables>> = {
  transaction: (work) => kysely.transaction().execute(work),
  execute: (tx, text, values) => tx.executeQuery(CompiledQuery.raw(text, [...values])),
  query: (text, values) => kysely.executeQuery(CompiledQuery.raw(text, [...values])),
}

const describeImage = stagedTasksFor<Transaction<Tables>>()({
  name: 'describe-image',
  input: unchecked<{ id: string }>(),
  prepare: async ({ tx, input: { id } }) => {
    await tx
      .withSchema(bench.schema.schema)
      .updateTable('images')
      .set({ status: 'processing' })
      .where('id', '=', id)
      .execute()
    return { id }
  },
  call: async ({ prepared }) => ({ text: `a picture of ${prepared.id}` }),
  commit: async ({ tx, prepared: { id }, answer }) => {
    const change = { status: 'completed', description: answer.text }
    await tx.withSchema(bench.schema.schema).updateTable('images').set(change).where('id', '=', id).execute()
    if (id === 'broken') throw new Error('commit failed')
    return answer.text.length
  },
  maxAttempts: 1,
})
const plain = defineTask({ name: 'plain', input: unchecked<null>(), run: () => 'ran' })

let engine: Engine<Transaction<Tables>>
beforeAll(async () => {
  await sql`CREATE TABLE ${sql.id(bench.schema.schema, 'images')} (id text PRIMARY KEY, description text, status text)`.execute(
    kysely,
  )
})
beforeEach(async () => {
  await tables().deleteFrom('images').execute()
  const { url, schema } = bench.schema
  engine = createEngine({ url, schema, tasks: [describeImage, plain], queues: { default: 2 }, transactor })
  await engine.start()
  return () => engine.stop({ graceMs: 0 })
})
afterAll(async () => {
  await sql`DROP TABLE ${sql.id(bench.schema.schema, 'images')}`.execute(kysely)
  await kysely.destroy()
})

function insertImage(tx: Transaction<Tables>, id: string) {
  return tx.withSchema(bench.schema.schema).insertInto('images').values({ id, status: 'pending' }).execute()
}

test('a job is enqueued in a Kysely transaction, with the rows that it is about', async () => {
  const { id } = await engine.transaction(async (tx) => {
    await insertImage(tx, 'cat')
    return engine.enqueue(describeImage, { id: 'cat' }, { tx, tags: ['a,b'], uniqueKey: 'cat' })
  })
  expect(await jobIn(engine, id, 'completed')).toMatchObject({ result: 16, tags: ['a,b'] })
  expect(await tables().selectFrom('images').selectAll().execute()).toEqual([
    { id: 'cat', status: 'completed', description: 'a picture of cat' },
  ])
})

test("in a transaction that is Kysely's own", async () => {
  const { id } = await kysely.transaction().execute(async (tx) => {
    const inserted = await engine.enqueue(plain, null, { tx, notify: 'in-transaction' })
    expect(await engine.job(inserted.id)).toBeNull()
    return inserted
  })
  await jobIn(engine, id, 'completed')
})

test('rolled back, neither exists', async () => {
  let id = ''
  const failed = engine.transaction(async (tx) => {
    await insertImage(tx, 'dog')
    id = (await engine.enqueue(plain, null, { tx })).id
    throw new Error('no')
  })
  await expect(failed).rejects.toThrow('no')
  expect(await engine.job(id)).toBeNull()
  expect(await tables().selectFrom('images').selectAll().execute()).toEqual([])
})

test("a staged task's commit and its ack are one transaction of Kysely", async () => {
  await engine.transaction((tx) => insertImage(tx, 'broken'))
  const { id } = await engine.enqueue(describeImage, { id: 'broken' })
  expect(await jobIn(engine, id, 'discarded')).toMatchObject({ error: { message: 'commit failed' } })
  expect(await tables().selectFrom('images').select(['status', 'description']).execute()).toEqual([
    { status: 'processing', description: null },
  ])
})

test('a connection that is lost in a transaction harms only that one, where pool and clients are listened to', async () => {
  const proxy = await startFaultProxy(serverAddress(testUrl()))
  const pool = new pg.Pool({ connectionString: proxy.url(testUrl()), max: 1 })
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  const proxied = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
  const one = sql<{ one: number }>`SELECT 1 AS one`
  const lost = proxied.transaction().execute(async (tx) => {
    await one.execute(tx)
    proxy.cutAll()
    await eventually(() => proxy.connections === 0)
    await one.execute(tx)
  })
  await expect(lost).rejects.toThrow()
  expect((await proxied.transaction().execute((tx) => one.execute(tx))).rows).toEqual([{ one: 1 }])
  await proxied.destroy()
  await proxy.close()
})
