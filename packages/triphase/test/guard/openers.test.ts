import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { expect, onTestFinished } from 'vitest'
import { guard, guardTransactions } from '../../src/guard/index.ts'
import { defineStagedTask, type Job, Permanent, pgTransactor, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { jobIn } from '../support/jobs.ts'
import { useScene } from './scene.ts'

const scene = useScene()
type Phase = 'prepare' | 'commit' | 'abandon'

function guardedPool(options: pg.PoolConfig = {}): pg.Pool {
  const pool = guard(new pg.Pool({ connectionString: testUrl(), max: 2, ...options }))
  onTestFinished(() => pool.end())
  return pool
}

/** A staged job that leaves a mark in one phase, and calls there. */
async function jobThatCallsIn(phase: Phase): Promise<{ job: Job; reported: string[] }> {
  const reported: string[] = []
  const work = async (tx: pg.PoolClient, here: Phase) => {
    if (here !== phase) return
    await scene.mark(tx)
    await fetch(scene.url)
  }
  const task = defineStagedTask({
    name: 'calls',
    input: unchecked<null>(),
    maxAttempts: 1,
    prepare: ({ tx }) => work(tx, 'prepare'),
    call: async () => {
      if (phase === 'abandon') throw new Permanent('given up')
    },
    commit: ({ tx }) => work(tx, 'commit'),
    abandon: ({ tx }) => work(tx, 'abandon'),
  })
  const engine = scene.guarded({ tasks: [task], queues: { default: 1 } })
  engine.telemetry.on('guard:offence', ({ opened, jobId, refused }) =>
    reported.push(`${opened} ${jobId} ${refused}`),
  )
  engine.telemetry.on('statement:failed', ({ error }) => failures.push(error))
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  const job = await jobIn(engine, id, 'discarded')
  expect(reported).toEqual([
    expect.stringMatching(new RegExp(`^for ${phase} of task calls \\(.*\\) ${id} true$`)),
  ])
  return { job, reported }
}

const failures: { message: string; code?: string }[] = []

scene.row('by-engine', () => scene.transaction(() => fetch(scene.url)))

scene.row('by-prepare', async () => {
  throw (await jobThatCallsIn('prepare')).job.error
})

scene.row('by-commit', async () => {
  throw (await jobThatCallsIn('commit')).job.error
})

scene.row('by-abandon', async () => {
  const { job } = await jobThatCallsIn('abandon')
  expect(job.error).toMatchObject({ message: 'given up' })
  throw failures.at(-1)
})

async function byClient(pool: pg.Pool): Promise<void> {
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await scene.mark(client)
    await fetch(scene.url)
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

scene.row('by-pg-pool', () => byClient(guardedPool()))

scene.row('by-pg-callbacks', () => {
  const pool = guardedPool()
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  pool.connect((_error, client, release) => {
    void client?.query('BEGIN', () => {
      void client.query(`INSERT INTO ${scene.table} VALUES ('mark')`, () => {
        void fetch(scene.url).then(() => {
          void client.query('COMMIT', (error) => {
            release()
            if (error) reject(error)
            else resolve()
          })
        })
      })
    })
  })
  return promise
})

scene.row('by-kysely', async () => {
  const kysely = new Kysely<Record<string, { name: string }>>({
    dialect: new PostgresDialect({ pool: guardedPool() }),
  })
  await kysely.transaction().execute(async (tx) => {
    await tx.withSchema(scene.bench.schema.schema).insertInto('marks').values({ name: 'mark' }).execute()
    await fetch(scene.url)
  })
})

scene.row('by-drizzle', async () => {
  const db = guardTransactions(drizzle(guardedPool()))
  await db.transaction(async (tx) => {
    await tx.execute(sql.raw(`INSERT INTO ${scene.table} VALUES ('mark')`))
    await fetch(scene.url)
  })
})

scene.row('by-transactor', () => {
  const engine = scene.guarded({ transactor: pgTransactor(guardedPool()) })
  return engine.transaction(async (tx) => {
    await scene.mark(tx)
    await fetch(scene.url)
  })
})

scene.row('second-checkout', async () => {
  const pool = guardedPool()
  const engine = scene.guarded({ transactor: pgTransactor(pool) })
  await engine.transaction(async (tx) => {
    await scene.mark(tx)
    await pool.query('SELECT 1')
  })
})
