import { expect, test } from 'vitest'
import { defineStagedTask, defineTask, unchecked } from '../../src/index.ts'
import { Janitor } from '../../src/maintenance/janitor.ts'
import { maintainPartitions, withPartition } from '../../src/store/partitions.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { type Scene, sceneOf } from '../liveness/scene.ts'

const DAY_MS = 86_400_000
const WEEK_MS = 7 * DAY_MS
const POOL = 'triphase_history'
const TABLES = ['job_history', 'job_attempt'] as const

/** Midnight of a day, so many days from today, in UTC. */
function day(offset: number): Date {
  return new Date(Math.floor(Date.now() / DAY_MS) * DAY_MS + offset * DAY_MS)
}

function nameOf(table: string, offset: number): string {
  return `${table}_${day(offset).toISOString().slice(0, 10).replaceAll('-', '')}`
}

function days(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index)
}

async function partitionsOf(scene: Scene, table: string): Promise<string[]> {
  const rows = await scene.rows<{ name: string }>(
    `SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = $1::regclass AND c.relkind = 'r' ORDER BY 1`,
    [`${scene.schema.schema}.${table}`],
  )
  return rows.map(({ name }) => name)
}

/** A schema without any partition. */
async function bare(context: Parameters<typeof sceneOf>[0]): Promise<Scene> {
  const scene = await sceneOf(context, POOL)
  await dropAll(scene)
  return scene
}

async function dropAll(scene: Scene): Promise<void> {
  for (const table of TABLES) {
    for (const name of await partitionsOf(scene, table)) await scene.rows(`DROP TABLE triphase.${name}`)
  }
}

async function expectDays(scene: Scene, expected: number[]): Promise<void> {
  for (const table of TABLES)
    expect(await partitionsOf(scene, table)).toEqual(expected.map((offset) => nameOf(table, offset)))
}

const inDays = (offset: number) => new Date(Date.now() + offset * DAY_MS)

test.concurrent('partitions of today and the next seven days are made, and then nothing until tomorrow', async (context) => {
  const scene = await bare(context)
  const { database } = scene.schema
  expect(await maintainPartitions(database, WEEK_MS)).toEqual({ made: 16, dropped: 0, postponed: 0 })
  await expectDays(scene, days(0, 7))
  expect(await maintainPartitions(database, WEEK_MS)).toEqual({ made: 0, dropped: 0, postponed: 0 })
  expect(await maintainPartitions(database, WEEK_MS, inDays(1))).toEqual({
    made: 2,
    dropped: 0,
    postponed: 0,
  })
  await expectDays(scene, days(0, 8))
})

test.concurrent('as the days go by there are the days that are kept and those ahead', async (context) => {
  const scene = await bare(context)
  for (const today of days(0, 30)) await maintainPartitions(scene.schema.database, WEEK_MS, inDays(today))
  await expectDays(scene, days(30 - 7, 30 + 7))
})

test.concurrent('a day is dropped when all of it is older than the retention, with its rows, and no row is deleted', async (context) => {
  const scene = await bare(context)
  const engine = scene.engine({ retention: '7d' })
  const { database } = scene.schema
  for (const today of [-10, -5, 0]) await maintainPartitions(database, 30 * DAY_MS, inDays(today))
  const task = { name: 'task', input: unchecked<unknown>(), options: {} }
  const finished = [-9, -8, -7, -6, 0]
  const ids = new Map<number, string>()
  for (const offset of finished) {
    const { id } = await engine.enqueue(task, {})
    await engine.cancel(id)
    await scene.rows(`UPDATE triphase.job_history SET finished_at = $2 WHERE id = $1`, [id, day(offset)])
    ids.set(offset, id)
  }
  const sent: string[] = []
  const watched = new Proxy(database, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      return (...values: unknown[]) => {
        if (name === 'query') sent.push(String(values[0]))
        return value.apply(target, values)
      }
    },
  })
  const janitor = new Janitor(watched, new Telemetry(), WEEK_MS, () => {})
  const pruned = await janitor.prune()
  expect(pruned).toMatchObject({ postponed: 0, partitionsDropped: 2 * 3 })
  await expectDays(scene, days(-7, 7))
  for (const offset of finished)
    expect(await engine.job(ids.get(offset) as string)).toEqual(offset < -7 ? null : expect.anything())
  expect(sent.filter((sql) => /DELETE FROM triphase\.job_(history|attempt)/.test(sql))).toEqual([])
})

test.concurrent('who migrates drops nothing: it may not know how long the others keep history', async (context) => {
  const scene = await bare(context)
  await maintainPartitions(scene.schema.database, 30 * DAY_MS, inDays(-20))
  const kept = days(-20, -13)
  await scene.engine({ retention: 0 }).migrate()
  await expectDays(scene, [...kept, ...days(0, 7)])
})

test.concurrent('several processes that maintain at the same time make each partition once, and none fails', async (context) => {
  const scene = await bare(context)
  const { database } = scene.schema
  const work = await Promise.all([1, 2, 3, 4].map(() => maintainPartitions(database, WEEK_MS)))
  expect(work.reduce((made, one) => made + one.made, 0)).toBe(16)
  await expectDays(scene, days(0, 7))
  const dropped = await Promise.all([1, 2, 3, 4].map(() => maintainPartitions(database, WEEK_MS, inDays(12))))
  expect(dropped.map(({ postponed }) => postponed)).toEqual([0, 0, 0, 0])
  await expectDays(scene, [...days(5, 7), ...days(12, 19)])
})

test.concurrent('rows at the edges of a day go into their own day', async (context) => {
  const scene = await bare(context)
  await maintainPartitions(scene.schema.database, WEEK_MS)
  const engine = scene.engine()
  const { id } = await engine.enqueue({ name: 'task', input: unchecked<unknown>(), options: {} }, {})
  await engine.cancel(id)
  const where = `UPDATE triphase.job_history SET finished_at = $1 RETURNING tableoid::regclass::text AS name`
  for (const [time, offset] of [
    [day(3).getTime(), 3],
    [day(3).getTime() - 1, 2],
    [day(4).getTime() - 1, 3],
  ] as const) {
    const [row] = await scene.rows(where, [new Date(time)])
    expect(row).toEqual({ name: `${scene.schema.schema}.${nameOf('job_history', offset)}` })
  }
})

test.concurrent('whatever writes history makes the partition of the day when it is missing', async (context) => {
  const scene = await bare(context)
  const plain = defineTask({ name: 'plain', input: unchecked<unknown>(), run: () => 'done' })
  const failing = defineTask({
    name: 'failing',
    input: unchecked<unknown>(),
    backoff: { initial: '1h' },
    run: () => Promise.reject(new Error('not today')),
  })
  const staged = defineStagedTask({
    name: 'staged',
    input: unchecked<unknown>(),
    prepare: async () => ({}),
    call: async () => 'answer',
    commit: async ({ answer }) => answer,
  })
  const engine = scene.engine({ tasks: [plain, failing, staged], queues: { default: 1 } })
  const leading = engine.telemetry.next('history:pruned')
  await engine.start()
  await leading

  await dropAll(scene)
  const completed = engine.telemetry.next('job:completed')
  await engine.enqueue(plain, {})
  expect(await completed).toMatchObject({ result: 'done' })

  await dropAll(scene)
  const retried = engine.telemetry.next('job:retried')
  const { id } = await engine.enqueue(failing, {})
  await retried
  expect(await engine.attempts(id)).toMatchObject([{ outcome: 'retried' }])

  await dropAll(scene)
  expect(await engine.cancel(id)).toBe('cancelled')

  await dropAll(scene)
  const committed = engine.telemetry.next('job:completed')
  await engine.enqueue(staged, {})
  expect(await committed).toMatchObject({ result: 'answer' })
})

test.concurrent('a day without a partition is known whatever language the server speaks', async (context) => {
  const scene = await bare(context)
  const write = () =>
    scene.rows(`INSERT INTO triphase.job_attempt (job_id, claim_no, attempt, queue, task, outcome)
      VALUES (1, 1, 1, 'q', 't', 'completed')`)
  const inGerman = (error: Error) => {
    error.message = 'keine Partition von Relation »job_attempt« für die Zeile gefunden'
    throw error
  }
  await withPartition(scene.schema.database, () => write().catch(inGerman))
  expect(await scene.rows('SELECT job_id FROM triphase.job_attempt')).toHaveLength(1)
})

test.concurrent('a process is rescued on a day that has no partition yet', async (context) => {
  const scene = await bare(context)
  const hold = defineTask({ name: 'hold', input: unchecked<unknown>(), run: () => 'done' })
  const beating = { heartbeat: '200ms', deadAfter: '600ms', queues: { default: 1 } } as const
  const peer = scene.engine({ ...beating, tasks: [hold] })
  const pruned = peer.telemetry.next('history:pruned')
  await peer.start()
  await pruned
  const victim = await scene.process({ ...beating, queues: { 'of-the-victim': 1 } })
  const { id } = await peer.enqueue(hold, {}, { queue: 'of-the-victim' })
  await victim.event('job:started')
  await dropAll(scene)
  const rescued = peer.telemetry.next('jobs:rescued')
  victim.kill('SIGKILL')
  expect((await rescued).again).toEqual([id])
})

test.concurrent('an ack that makes its partition does not wait for a reader of old ones', async (context) => {
  const scene = await bare(context)
  const { database } = scene.schema
  await maintainPartitions(database, 30 * DAY_MS, inDays(-20))
  const reader = scene.engine({ name: 'reader' })
  const done = defineTask({ name: 'done', input: unchecked<unknown>(), run: () => {} })
  // Nothing is old enough for its own janitor.
  const engine = scene.engine({ tasks: [done], queues: { default: 1 }, retention: '100d' })
  await engine.start()
  await dropToday(scene)
  await reader.transaction(async (tx) => {
    await tx.query(`SELECT count(*) FROM ${scene.schema.schema}.job_history`)
    const began = performance.now()
    const completed = engine.telemetry.next('job:completed')
    await engine.enqueue(done, {})
    await completed
    expect(performance.now() - began).toBeLessThan(1_500)
  })
})

/** The days from today on; the old ones stay. */
async function dropToday(scene: Scene): Promise<void> {
  for (const table of TABLES) {
    for (const name of await partitionsOf(scene, table))
      if (name >= nameOf(table, 0)) await scene.rows(`DROP TABLE triphase.${name}`)
  }
}
