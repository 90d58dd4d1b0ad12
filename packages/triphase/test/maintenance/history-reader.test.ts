import type pg from 'pg'
import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { Database } from '../../src/store/database.ts'
import { maintainPartitions } from '../../src/store/partitions.ts'
import { type PgEngine, type Scene, sceneOf } from '../liveness/scene.ts'
import { testUrl } from '../support/database-url.ts'
import { eventually } from '../support/processes.ts'

const DAY_MS = 86_400_000
const WEEK_MS = 7 * DAY_MS
const POOL = 'triphase_history'
/** What an ack may wait beyond what it takes anyway: far less than any lock that waits for a reader. */
const TOLERANCE_MS = 250

const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: () => performance.now() })

/** A partition of each table that is due to be dropped, and an engine at work. */
async function withOldPartitions(
  context: Parameters<typeof sceneOf>[0],
): Promise<{ scene: Scene; engine: PgEngine }> {
  const scene = await sceneOf(context, POOL)
  for (const table of ['job_history', 'job_attempt'])
    await scene.rows(`CREATE TABLE IF NOT EXISTS triphase.${table}_20200101 PARTITION OF triphase.${table}
      FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')`)
  const engine = scene.engine({ tasks: [task], queues: { default: 5 }, retention: '3650d' })
  await engine.start()
  return { scene, engine }
}

/** Jobs, one after the other, until `end` resolves; returns the time from each handler's end to its ack. */
async function ackTimes(engine: PgEngine, end: Promise<unknown>): Promise<number[]> {
  const times: number[] = []
  let ended = false
  void end.then(() => {
    ended = true
  })
  while (!ended || times.length < 50) {
    const completed = engine.telemetry.next('job:completed')
    await engine.enqueue(task, {})
    const { result } = await completed
    times.push(performance.now() - Number(result))
  }
  return times
}

const most = (times: readonly number[]) => Math.max(...times)

/** A transaction that has read, and is not over until it is told. */
async function openReader(scene: Scene, sql: string): Promise<{ close: () => Promise<void> }> {
  const [read, done] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const transaction = scene
    .engine({ name: 'reader', guard: { mode: 'off' } })
    .transaction(async (tx: pg.PoolClient) => {
      await tx.query(sql)
      read.resolve()
      await done.promise
    })
  await read.promise
  return {
    close() {
      done.resolve()
      return transaction
    },
  }
}

async function oldPartitions(scene: Scene): Promise<string[]> {
  const rows = await scene.rows<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind = 'r'
       AND relname ~ '_20200101$' ORDER BY 1`,
    [scene.schema.schema],
  )
  return rows.map(({ name }) => name)
}

const READERS = {
  'the whole history': (schema: string) => `SELECT count(*) FROM ${schema}.job_history`,
  'one old partition': (schema: string) => `SELECT count(*) FROM ${schema}.job_history_20200101`,
}

test.for(Object.entries(READERS))(
  'while somebody reads %s, pruning delays no ack, and is done once the reader has left',
  async ([, read], context) => {
    const { scene, engine } = await withOldPartitions(context)
    const { database, schema } = scene.schema
    const alone = await ackTimes(engine, Promise.resolve())
    const reader = await openReader(scene, read(schema))
    const pruning = maintainPartitions(database, WEEK_MS)
    const meanwhile = await ackTimes(engine, pruning)
    const work = await pruning
    expect(work.postponed).toBeGreaterThan(0)
    expect(await oldPartitions(scene)).not.toEqual([])
    expect(most(meanwhile)).toBeLessThan(most(alone) + TOLERANCE_MS)
    await reader.close()
    expect((await maintainPartitions(database, WEEK_MS)).postponed).toBe(0)
    expect(await oldPartitions(scene)).toEqual([])
  },
)

test('a plain DROP would have waited for the reader, and every ack for the DROP', async (context) => {
  const { scene, engine } = await withOldPartitions(context)
  const { schema } = scene.schema
  const reader = await openReader(scene, READERS['the whole history'](schema))
  const dropped = scene
    .engine({ name: 'dropper' })
    .transaction((tx) => tx.query(`DROP TABLE ${schema}.job_history_20200101`))
  const waiting = (application: string) =>
    `SELECT FROM pg_stat_activity WHERE application_name = '${application}' AND wait_event_type = 'Lock'`
  await eventually(async () => (await scene.rows(waiting('dropper'))).length === 1)
  const completed = engine.telemetry.next('job:completed')
  let acked = false
  void completed.then(() => {
    acked = true
  })
  const blocked = `SELECT FROM pg_stat_activity a JOIN pg_stat_activity b ON b.pid = ANY (pg_blocking_pids(a.pid))
    WHERE a.application_name = 'triphase-engine' AND a.query LIKE '%finish_jobs%' AND b.application_name = 'dropper'`
  await engine.enqueue(task, {})
  await eventually(async () => (await scene.rows(blocked)).length > 0)
  expect(acked).toBe(false)
  await reader.close()
  await dropped
  await completed
})

test('pruning under continuous acks of a busy queue drops everything, if nobody reads', async (context) => {
  const { scene, engine } = await withOldPartitions(context)
  const pruning = maintainPartitions(scene.schema.database, WEEK_MS)
  await ackTimes(engine, pruning)
  expect((await pruning).postponed).toBe(0)
  expect(await oldPartitions(scene)).toEqual([])
})

test('a pruner whose network fails after its lock was taken holds up no ack', async (context) => {
  const { scene, engine } = await withOldPartitions(context)
  const proxy = await scene.proxy()
  const pruner = new Database(scene.schema.schema, {
    url: proxy.url(testUrl()),
    size: 1,
    applicationName: 'pruner',
    acquireTimeoutMs: 10_000,
    statementTimeoutMs: 15_000,
  })
  context.onTestFinished(() => pruner.end())
  const locked = proxy.onStatement(/LOCK TABLE ONLY/, 'hold-reply')
  const pruning = maintainPartitions(pruner, WEEK_MS)
  await locked.hit
  const times = await ackTimes(engine, Promise.resolve())
  expect(most(times)).toBeLessThan(1_000)
  locked.release()
  await pruning
})
