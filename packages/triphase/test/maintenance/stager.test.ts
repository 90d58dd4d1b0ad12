import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { Stager } from '../../src/maintenance/stager.ts'
import { stageDueJobs } from '../../src/store/stage.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { sceneOf } from '../liveness/scene.ts'
import { testUrl } from '../support/database-url.ts'
import { eventually } from '../support/processes.ts'

const HEARTBEAT_MS = 300
const BEATING = { heartbeat: HEARTBEAT_MS, deadAfter: 3 * HEARTBEAT_MS } as const

const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: () => {} })

/** How late each finished job was claimed, in milliseconds by the database's clock, least first. */
const LATENESS = `SELECT extract(epoch FROM claimed_at - run_at)::float8 * 1000 AS ms
  FROM triphase.job_history ORDER BY 1`

async function latenesses(
  rows: Promise<{ ms: number }[]>,
): Promise<{ least: number; quartile: number; median: number }> {
  const ms = (await rows).map((row) => row.ms)
  const at = (part: number) => ms[Math.floor((ms.length - 1) * part)] as number
  return { least: at(0), quartile: at(0.25), median: at(0.5) }
}

// On its own: other tests beside it would make it late.
test('jobs enqueued here are claimed when they are due: not earlier, and within 100 ms', async (context) => {
  const scene = await sceneOf(context)
  // Its beats do not help: the stager knows by itself.
  const engine = scene.engine({ tasks: [task], queues: { default: 50 } })
  await engine.start()
  for (let delay = 100; delay <= 1_000; delay += 50) await engine.enqueue(task, {}, { delay })
  await scene.allDone()
  const { least, quartile, median } = await latenesses(scene.rows(LATENESS))
  expect(least).toBeGreaterThanOrEqual(0)
  // A machine that is busy with other things delays some of them; a stager that polled would delay all.
  expect(quartile).toBeLessThan(100)
  expect(median).toBeLessThan(1_000)
})

test.concurrent('a nearer job wakes a stager that waits for a later one, and runAt counts by the database', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine({ tasks: [task], queues: { default: 50 } })
  await engine.start()
  await engine.enqueue(task, {}, { delay: '1h' })
  await engine.enqueue(task, {}, { delay: '400ms' })
  const { id } = await engine.enqueue(task, {}, { runAt: new Date(Date.now() + 200) })
  await eventually(async () => (await engine.job(id))?.state === 'completed')
  await eventually(async () => (await engine.counts())[0]?.count === 1)
  expect((await latenesses(scene.rows(LATENESS))).least).toBeGreaterThanOrEqual(0)
})

test.concurrent('jobs of a foreign transaction, which sends no hint, are claimed within a heartbeat', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  // Nothing that the enqueuing engine publishes arrives: only the beat can tell.
  const options = { ...BEATING, tasks: [task], queues: { default: 50 } }
  const engine = scene.engine({ ...options, url: proxy.url(testUrl()), directUrl: proxy.url(testUrl()) })
  await engine.start()
  const foreign = scene.engine()
  for (let delay = 50; delay <= 1_000; delay += 100)
    await foreign.transaction((tx) => foreign.enqueue(task, {}, { tx, delay, notify: 'after-commit' }))
  await scene.allDone()
  const { least, quartile, median } = await latenesses(scene.rows(LATENESS))
  expect(least).toBeGreaterThanOrEqual(0)
  expect(quartile).toBeLessThan(HEARTBEAT_MS + 100)
  expect(median).toBeLessThan(1_000)
})

test.concurrent('`now` moves the clock', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  await engine.enqueueMany(task, [
    { input: {}, delay: '1h' },
    { input: {}, delay: '3h' },
  ])
  const stager = new Stager(scene.schema.database, new Telemetry(), () => {})
  const inHours = (hours: number) => new Date(Date.now() + hours * 3_600_000)
  expect(await stager.runOnce()).toBe(0)
  expect(await stager.runOnce(inHours(0.9))).toBe(0)
  expect(await stager.runOnce(inHours(2))).toBe(1)
  expect(await stager.runOnce(inHours(2))).toBe(0)
  expect(await stager.runOnce(inHours(4))).toBe(1)
})

test.concurrent('5,000 jobs that are due at once are staged in a few rounds, each once', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine(BEATING)
  await engine.enqueueMany(task, Array(5_000).fill({ input: {}, delay: '500ms' }))
  const rounds: number[] = []
  engine.telemetry.on('jobs:staged', ({ count }) => rounds.push(count))
  await engine.start()
  await eventually(async () => (await engine.counts())[0]?.state === 'available')
  await eventually(() => rounds.reduce((sum, count) => sum + count, 0) >= 5_000)
  expect(rounds.reduce((sum, count) => sum + count, 0)).toBe(5_000)
  expect(rounds.length).toBeLessThan(15)
})

test.concurrent('two stagers at the same time stage 5,000 jobs, none of them twice, and wait for nothing', async (context) => {
  const scene = await sceneOf(context)
  await scene.engine().enqueueMany(task, Array(5_000).fill({ input: {}, delay: '1ms' }))
  const stage = async () =>
    (await stageDueJobs(scene.schema.database, 100)).reduce((sum, queue) => sum + queue.count, 0)
  const drain = async () => {
    let staged = 0
    for (let count = 1; count > 0; staged += count) count = await stage()
    return staged
  }
  // One is in the middle of a round: its rows are locked until it commits.
  const other = scene.engine({ guard: { mode: 'off' } })
  const first = await other.transaction(async (tx) => {
    const rows = `SELECT FROM ${scene.schema.schema}.job WHERE state = 'scheduled' ORDER BY run_at LIMIT 100 FOR UPDATE`
    expect((await tx.query(rows)).rowCount).toBe(100)
    return stage()
  })
  expect(first).toBe(100)
  const [a, b] = await Promise.all([drain(), drain()])
  expect(first + a + b).toBe(5_000)
})

test.concurrent('a due job that somebody has locked is not asked for over and over', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine(BEATING)
  const { id } = await engine.enqueue(task, {}, { delay: '50ms' })
  const proxy = await scene.proxy()
  let asked = 0
  proxy.onStatement((sql) => {
    if (/WITH due AS/.test(sql)) asked++
    return false
  }, 'error')
  const stager = scene.engine({
    ...BEATING,
    url: proxy.url(testUrl()),
    tasks: [task],
    queues: { default: 1 },
  })
  const holder = scene.engine({ guard: { mode: 'off' } })
  await holder.transaction(async (tx) => {
    await tx.query(`SELECT FROM ${scene.schema.schema}.job WHERE id = $1 FOR UPDATE`, [id])
    await stager.start()
    await scene.beats(4)
  })
  expect(asked).toBeLessThan(60)
  await scene.allDone()
})
