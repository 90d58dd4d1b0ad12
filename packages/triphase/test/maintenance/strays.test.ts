import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { Janitor } from '../../src/maintenance/janitor.ts'
import { beatOnce } from '../../src/store/heartbeat.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { sceneOf } from '../liveness/scene.ts'
import { testUrl } from '../support/database-url.ts'
import { eventually } from '../support/processes.ts'
import { insertClaimed, rowsOf } from '../support/store-jobs.ts'

const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const
const CLAIM = /\.claim_jobs\(/
const JOBS = 10
const BEAT = {
  running: [],
  queues: [],
  stopping: false,
  leaseMs: 1_000,
  strayAfterMs: 0,
  lookForStrays: true,
}

const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: () => 'done' })

test.concurrent('jobs whose claim lost its reply are claimed by nobody for a while, then run: once, and without a crash', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  await scene.engine().enqueueMany(task, Array(JOBS).fill({ input: {} }))
  const lost = proxy.onStatement(CLAIM, 'cut-after')
  const engine = scene.engine({
    ...BEATING,
    url: proxy.url(testUrl()),
    tasks: [task],
    queues: { default: 50 },
  })
  const failed = engine.telemetry.next('statement:failed', ({ statement }) => statement === 'claim')
  await engine.start()
  await lost.hit
  await failed
  // The server has done the claim, and this process does not know; younger claims may still be on their way.
  await scene.executing(JOBS)
  await scene.beats(3)
  const [young] = await scene.rows(`SELECT count(*)::int AS count FROM triphase.job WHERE claim_no = 1`)
  expect(young).toEqual({ count: JOBS })

  const returned = engine.telemetry.next('jobs:strays-returned')
  await scene.rows(`UPDATE triphase.job SET claimed_at = claimed_at - interval '46 s'`)
  expect((await returned).jobIds).toHaveLength(JOBS)
  await scene.allDone()
  const history = await scene.rows(`SELECT state, claim_no, attempt, crash_count FROM triphase.job_history`)
  const done = { state: 'completed', claim_no: 3, attempt: 1, crash_count: 0 }
  expect(history).toEqual(Array(JOBS).fill(done))
})

test.concurrent('a claim whose request is lost claims nothing, and is made again at once', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  await scene.engine().enqueueMany(task, Array(JOBS).fill({ input: {} }))
  const lost = proxy.onStatement(CLAIM, 'cut-before')
  const engine = scene.engine({ url: proxy.url(testUrl()), tasks: [task], queues: { default: 50 } })
  await engine.start()
  await lost.hit
  await scene.allDone(3_000)
})

test.concurrent('what runs is no stray, however old its claim', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  const release = Promise.withResolvers<void>()
  let running = 0
  const run = () => {
    running++
    return release.promise
  }
  const slow = defineTask({ name: 'slow', input: unchecked<unknown>(), run })
  const engine = scene.engine({
    ...BEATING,
    url: proxy.url(testUrl()),
    tasks: [slow],
    queues: { default: 5 },
  })
  await engine.start()
  await engine.enqueueMany(slow, Array(3).fill({ input: {} }))
  await eventually(() => running === 3)
  await scene.rows(`UPDATE triphase.job SET claimed_at = claimed_at - interval '1 hour'`)
  // A failed claim makes the process look for strays.
  const failed = engine.telemetry.next('statement:failed', ({ statement }) => statement === 'claim')
  const lost = proxy.onStatement(CLAIM, 'cut-before')
  await engine.enqueue(slow, {})
  await lost.hit
  await failed
  await eventually(() => running === 4)
  await scene.beats(3)
  release.resolve()
  await scene.allDone()
  const history = await scene.rows(`SELECT claim_no FROM triphase.job_history`)
  expect(history).toEqual(Array(4).fill({ claim_no: 1 }))
})

test.concurrent('orphans, executing in the name of a process that has no row, are made available by the janitor', async (context) => {
  const scene = await sceneOf(context)
  await scene.engine().enqueueMany(task, Array(JOBS).fill({ input: {} }))
  await scene.rows(`UPDATE triphase.job SET state = 'executing', process_id = 12345, claimed_at = clock_timestamp(),
    claim_no = 1, attempt = 1`)
  const queues: string[][] = []
  const janitor = new Janitor(scene.schema.database, new Telemetry(), 86_400_000, (found) =>
    queues.push(found),
  )
  await janitor.settle()
  expect(queues).toEqual([['default']])
  const jobs = await scene.rows(`SELECT state, claim_no, attempt, crash_count FROM triphase.job`)
  expect(jobs).toEqual(Array(JOBS).fill({ state: 'available', claim_no: 2, attempt: 0, crash_count: 0 }))
  await janitor.settle()
  expect(queues).toHaveLength(1)
})

test.concurrent('an engine that begins to lead finds orphans, and runs them', async (context) => {
  const scene = await sceneOf(context)
  await scene.engine().enqueue(task, {})
  await scene.rows(`UPDATE triphase.job SET state = 'executing', process_id = 12345, claimed_at = clock_timestamp(),
    claim_no = 1, attempt = 1`)
  const engine = scene.engine({ ...BEATING, tasks: [task], queues: { default: 1 } })
  await engine.start()
  await scene.allDone()
})

test.concurrent('the janitor leaves the jobs of living processes alone', async (context) => {
  const scene = await sceneOf(context)
  const release = Promise.withResolvers<void>()
  const slow = defineTask({ name: 'slow', input: unchecked<unknown>(), run: () => release.promise })
  const engine = scene.engine({ tasks: [slow], queues: { default: 5 } })
  await engine.start()
  await engine.enqueueMany(slow, Array(5).fill({ input: {} }))
  await scene.executing(5)
  const janitor = new Janitor(scene.schema.database, new Telemetry(), 86_400_000, () => {
    throw new Error('there are no orphans')
  })
  await janitor.settle()
  release.resolve()
  await scene.allDone()
  expect(await scene.rows(`SELECT claim_no FROM triphase.job_history`)).toEqual(
    Array(5).fill({ claim_no: 1 }),
  )
})

test.concurrent('a stray that somebody has locked holds up no beat: it is found by a later one', async (context) => {
  const scene = await sceneOf(context)
  const { database } = scene.schema
  const job = await insertClaimed(database)
  const [row] = await rowsOf(database, job.id)
  const processId = row!.processId as string
  const beat = () => beatOnce(database, { ...BEAT, processId })
  await database.transaction(async ({ query }) => {
    await query(`SELECT FROM triphase.job WHERE id = $1 FOR UPDATE`, [job.id])
    expect(await beat()).toMatchObject({ alive: true, strays: [] })
  })
  expect(await beat()).toMatchObject({ alive: true, strays: [job.id] })
})
