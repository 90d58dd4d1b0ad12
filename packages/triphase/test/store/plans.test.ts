import pg from 'pg'
import { expect, test } from 'vitest'
import { finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { storeAnswer } from '../../src/store/answer.ts'
import { Database, inSchema } from '../../src/store/database.ts'
import { insertJobs, insertUniqueJobs, onEnginePool } from '../../src/store/insert.ts'
import { useEngines } from '../support/engines.ts'
import { ackOf, claim, insertProcess, newJob } from '../support/store-jobs.ts'

const bench = useEngines()
const TABLES = ['job', 'job_unique', 'answer', 'process']
const MANY = 20_000

/** One transaction, so that the functions' plans are kept from the first call to the last, and scans are its own. */
async function inOneTransaction(work: (database: Database) => Promise<void>): Promise<void> {
  const { url, schema } = bench.schema
  const options = {
    url,
    size: 1,
    applicationName: 'plans',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 60_000,
  }
  const database = new Database(schema, options)
  try {
    await database.transaction((transaction) => work(transaction as Database))
  } finally {
    await database.end()
  }
}

/** Everything that runs for jobs, in batches of five. */
async function everyStatement(database: Database, processId: string, round: number): Promise<void> {
  const run = onEnginePool(database)
  const jobs = Array.from({ length: 15 }, () => newJob())
  await insertJobs(run, jobs)
  await insertJobs(run, [newJob()])
  const keyed = Array.from({ length: 3 }, (_, n) => newJob({ uniqueKey: `${round}-${n}` }))
  await insertUniqueJobs(run, keyed)
  await insertUniqueJobs(run, keyed)
  const [answered, ...claimed] = await claim(database, processId, 19)
  await storeAnswer(database, { jobId: answered!.id, claimNo: answered!.claimNo, step: 'call', json: '1' })
  const acks = claimed.map((job) => ackOf(job, 'completed', { dropAnswers: [] }))
  expect((await finishJobs(run, acks.slice(0, 12))).size).toBe(12)
  expect((await finishJobs(run, [ackOf(answered!, 'completed', { dropAnswers: [] })])).size).toBe(1)
  const back = claimed.slice(12).map((job) => ackOf(job, 'retryable', { delayMs: 86_400_000 }))
  expect((await rescheduleJobs(run, back)).size).toBe(6)
}

/** Scans of this transaction so far: of whole tables, and of the index that holds what is being executed. */
async function scans(database: Database): Promise<Record<string, number>> {
  const { schema } = bench.schema
  const tables = await database.query<{ name: string; count: string }>(
    'SELECT relname AS name, seq_scan AS count FROM pg_stat_xact_user_tables WHERE schemaname = $1 AND relname = ANY ($2)',
    [schema, TABLES],
  )
  const executing = await database.query<{ count: string }>(
    `SELECT pg_stat_get_xact_numscans('triphase.job_executing'::regclass) AS count`,
  )
  const counts = tables.map(({ name, count }) => [name, Number(count)])
  return { ...Object.fromEntries(counts), job_executing: Number(executing[0]!.count) }
}

test.for([
  ['made while the tables were empty', async () => {}],
  [
    'made with statistics of empty tables',
    async (client: pg.Client) => {
      for (const table of TABLES)
        await client.query(inSchema(`ANALYZE triphase.${table}`, bench.schema.schema))
    },
  ],
  [
    'made when there were many jobs, and statistics of them',
    async (client: pg.Client) => {
      await fill(client)
      for (const table of TABLES)
        await client.query(inSchema(`ANALYZE triphase.${table}`, bench.schema.schema))
    },
  ],
] as const)('a plan reads no whole table: %s', async ([, prepare]) => {
  const watcher = new pg.Client({ connectionString: bench.schema.url })
  await watcher.connect()
  try {
    await prepare(watcher)
    await inOneTransaction(async (database) => {
      const processId = await insertProcess(database)
      // More often than the five times for which a plan could be made for the values at hand.
      for (let round = 0; round < 8; round++) await everyStatement(database, processId, round)
      await fill(watcher)
      const before = await scans(database)
      for (let round = 8; round < 16; round++) await everyStatement(database, processId, round)
      expect(await scans(database)).toEqual(before)
    })
  } finally {
    await watcher.end()
  }
})

/** Many jobs, keys and answers at once, of which no statistics tell yet. */
async function fill(client: pg.Client): Promise<void> {
  const { schema } = bench.schema
  await client.query(
    inSchema(
      `INSERT INTO triphase.job (queue, task, state, max_attempts, input)
       SELECT 'other', 'task', 'available', 10, '{}' FROM generate_series(1, $1::int)`,
      schema,
    ),
    [MANY],
  )
  await client.query(
    inSchema(
      `INSERT INTO triphase.job_unique (key, job_id) SELECT 'of ' || id, id FROM triphase.job ON CONFLICT DO NOTHING`,
      schema,
    ),
  )
  await client.query(
    inSchema(
      `INSERT INTO triphase.answer (job_id, claim_no, step, answer) SELECT id, 1, 'call', '1' FROM triphase.job
       ON CONFLICT DO NOTHING`,
      schema,
    ),
  )
}
