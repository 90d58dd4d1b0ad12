import { type SQL, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { createEngine, type Engine, stagedTasksFor, type Transactor, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 3 })
const db = drizzle(pool)
type Tx = Parameters<Parameters<typeof db.transaction>[0]>[0]

/** `$1` as a parameter of Drizzle's. */
function statement(text: string, values: readonly unknown[]): SQL {
  const parts = text.split(/\$(\d+)/)
  return sql.join(
    parts.map((part, n) => (n % 2 === 0 ? sql.raw(part) : sql`${sql.param(values[Number(part) - 1])}`)),
  )
}

const transactor: Transactor<Tx> = {
  transaction: (work) => db.transaction(work),
  execute: (tx, text, values) => tx.execute(statement(text, values)),
}

const task = stagedTasksFor<Tx>()({
  name: 'task',
  input: unchecked<string>(),
  maxAttempts: 2,
  backoff: { initial: 1 },
  prepare: async ({ tx }) => (await tx.execute(sql`SELECT 7 AS n`)).rows[0],
  call: async ({ prepared }) => ({ ...prepared, secret: 'hunter2' }),
  commit: async ({ answer }) => answer,
})

let engine: Engine<Tx>
beforeEach(async () => {
  const { url, schema } = bench.schema
  engine = createEngine({ url, schema, tasks: [task], queues: { default: 2 }, transactor })
  return () => engine.stop({ graceMs: 0 })
})
afterAll(() => pool.end())

test('a staged task runs on Drizzle', async () => {
  await engine.start()
  const completed = engine.telemetry.next('job:completed')
  await engine.transaction((tx) => engine.enqueue(task, 'a', { tx }))
  expect((await completed).result).toEqual({ n: 7, secret: 'hunter2' })
})

test('what the database refuses of a completion is told without its values', async () => {
  const { database } = bench.schema
  await database.query(
    `ALTER TABLE triphase.job_attempt ADD CONSTRAINT refused CHECK (outcome <> 'completed')`,
  )
  try {
    await engine.start()
    const retried = engine.telemetry.next('job:retried')
    await engine.enqueue(task, 'a')
    const { error } = await retried
    expect(error).toMatchObject({ code: '23514' })
    expect(JSON.stringify(error)).not.toContain('hunter2')
  } finally {
    await engine.stop({ graceMs: 0 })
    await database.query('ALTER TABLE triphase.job_attempt DROP CONSTRAINT refused')
  }
})

test('an input that the database refuses is told without its values', async () => {
  const { database } = bench.schema
  await database.query(`ALTER TABLE triphase.job ADD CONSTRAINT refused CHECK (task <> 'task')`)
  try {
    const error = await engine
      .transaction((tx) => engine.enqueue(task, 'hunter2', { tx }))
      .catch((thrown) => thrown)
    expect(error).toMatchObject({ code: '23514' })
    expect(error.message).not.toContain('hunter2')
  } finally {
    await database.query('ALTER TABLE triphase.job DROP CONSTRAINT refused')
  }
})
