import { afterAll, afterEach, expect, test, vi } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { migrate } from '../../src/store/migrate.ts'
import { killWorkers } from '../support/processes.ts'
import { lasting, sceneOf } from './scene.ts'

const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const
const YEAR_MS = 365 * 86_400_000
const JOBS = 30

afterEach(() => void vi.useRealTimers())
afterAll(killWorkers)

const nap = defineTask({ name: 'nap', input: unchecked<{ ms: number }>(), run: () => {} })

test('processes whose clocks are years apart share the work, and nobody is rescued', async (context) => {
  const scene = await sceneOf(context)
  const shifts = [0, YEAR_MS, -YEAR_MS]
  const processes = await Promise.all(
    shifts.map((clockShiftMs) => scene.process({ ...BEATING, queues: { default: 4 } }, { clockShiftMs })),
  )
  const engine = scene.engine()
  const jobs = await engine.enqueueMany(nap, Array(JOBS).fill({ input: { ms: 100 } }))
  const delayed = await engine.enqueueMany(nap, Array(JOBS).fill({ input: { ms: 0 }, delay: '700ms' }))
  await scene.beats(10)
  await scene.allDone()
  const history = await scene.rows(
    `SELECT count(*)::int AS jobs, count(DISTINCT process_id)::int AS processes, max(claim_no) AS claims,
            bool_and(claimed_at >= run_at) AS on_time, max(finished_at - claimed_at) < '1 minute' AS short
     FROM triphase.job_history WHERE state = 'completed'`,
  )
  const all = jobs.length + delayed.length
  expect(history).toEqual([{ jobs: all, processes: 3, claims: 1, on_time: true, short: true }])
  for (const process of processes) {
    expect(process.events('jobs:rescued')).toEqual([])
    expect(process.events('process:lost')).toEqual([])
  }
})

test('a clock that jumps to and fro while jobs run rescues nobody, and delays nothing', async (context) => {
  const scene = await sceneOf(context)
  const task = defineTask({
    name: 'task',
    input: unchecked<unknown>(),
    backoff: { initial: '300ms' },
    run: async ({ job }) => {
      await lasting(100)
      if (job.attempt === 1) throw new Error('once more')
    },
  })
  const options = { ...BEATING, tasks: [task], queues: { default: 2 } }
  const engines = [scene.engine(options), scene.engine(options)]
  const alarms = scene.alarmsOf(engines, ['jobs:rescued', 'process:lost', 'job:lost'])
  await Promise.all(engines.map((engine) => engine.start()))
  const started = Date.now()
  vi.useFakeTimers({ toFake: ['Date'] })
  const jumps = setInterval(() => {
    vi.setSystemTime(started + (Math.random() < 0.5 ? YEAR_MS : -YEAR_MS))
  }, 50)
  context.onTestFinished(() => clearInterval(jumps))
  await scene.engine().enqueueMany(task, Array(JOBS).fill({ input: {} }))
  await scene.allDone()
  await scene.beats(5)
  const history = await scene.rows(`SELECT attempt, state, crash_count FROM triphase.job_history`)
  expect(history).toEqual(Array(JOBS).fill({ attempt: 2, state: 'completed', crash_count: 0 }))
  expect(alarms).toEqual([])
})

test('a process whose clock is years ahead neither drops the history of today nor misses its partition', async (context) => {
  const scene = await sceneOf(context)
  const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: () => {} })
  const engine = scene.engine({ tasks: [task], queues: { default: 1 } })
  vi.useFakeTimers({ toFake: ['Date'] })
  vi.setSystemTime(Date.now() + YEAR_MS)
  const partitions = `SELECT relname FROM pg_class WHERE relname ~ '^job_history_' AND relkind = 'r'
    AND relnamespace = $1::regnamespace ORDER BY 1`
  const before = await scene.rows(partitions, [scene.schema.schema])
  expect(await migrate(scene.schema.database)).toEqual([])
  await engine.start()
  const { id } = await engine.enqueue(task, {})
  await scene.allDone()
  expect(await engine.job(id)).toMatchObject({ state: 'completed' })
  expect(await scene.rows(partitions, [scene.schema.schema])).toEqual(before)
})
