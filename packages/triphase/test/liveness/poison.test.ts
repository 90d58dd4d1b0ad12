import { afterAll, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { type Scene, type StartedProcess, sceneOf } from './scene.ts'

const INNOCENTS = 20
const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const

afterAll(killWorkers)

const nap = defineTask({ name: 'nap', input: unchecked<{ ms: number }>(), run: () => {} })
const poison = defineTask({ name: 'poison', input: unchecked<{ afterMs: number }>(), run: () => {} })

/** Starts a process again each time it dies, until no job is left; returns all of them. */
async function superviseUntilDone(scene: Scene): Promise<StartedProcess[]> {
  const processes: StartedProcess[] = []
  const done = scene.allDone(25_000).then(() => 'done' as const)
  while (processes.length < 10) {
    const worker = await scene.process({ ...BEATING, queues: { default: INNOCENTS + 5 } })
    processes.push(worker)
    const ended = await Promise.race([worker.exited, done])
    if (ended === 'done') return processes
    expect(ended).toEqual({ code: null, signal: 'SIGKILL' })
  }
  throw new Error('the jobs were not done after ten processes')
}

/** How many of these jobs a process ran at a time, at most. */
function mostAtOnce(worker: StartedProcess, jobs: ReadonlySet<string>): number {
  let [now, most] = [0, 0]
  for (const line of worker.lines) {
    const [, name, id] = line.match(/^job:(started|completed) .*?"jobId":"(\d+)"/) ?? []
    if (!id || !jobs.has(id)) continue
    now += name === 'started' ? 1 : -1
    most = Math.max(most, now)
  }
  return most
}

test.concurrent('a job that kills its process is discarded after three crashes, and the jobs that ran with it are all done', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  const half = Array(INNOCENTS / 2).fill({ input: { ms: 60 } })
  const before = await engine.enqueueMany(nap, half)
  const { id } = await engine.enqueue(poison, { afterMs: 20 })
  const innocents = [...before, ...(await engine.enqueueMany(nap, half))]
  const processes = await superviseUntilDone(scene)

  expect(processes).toHaveLength(4)
  const message = expect.stringMatching(/pid \d+.*memory, native code and process\.exit/)
  const error = { code: 'CRASHED_TOO_OFTEN', message }
  expect(await engine.job(id)).toMatchObject({ state: 'discarded', crashCount: 3, error })
  expect((await engine.attempts(id)).map(({ outcome }) => outcome)).toEqual(Array(3).fill('crashed'))
  for (const innocent of innocents) {
    const { state, attempt, crashCount } = (await engine.job(innocent.id)) ?? {}
    expect({ state, attempt }).toEqual({ state: 'completed', attempt: 1 })
    expect(crashCount).toBeLessThan(3)
  }

  // Twice they all ran together; from then on one suspect ran at a time.
  const all = new Set([id, ...innocents.map((innocent) => innocent.id)])
  const [first, second, ...later] = processes as [StartedProcess, StartedProcess, ...StartedProcess[]]
  expect([first, second].map((worker) => mostAtOnce(worker, all))).toEqual([INNOCENTS + 1, INNOCENTS + 1])
  for (const worker of later) expect(mostAtOnce(worker, all)).toBeLessThanOrEqual(1)
})

test.concurrent('suspects do not hold up the other jobs of their queue', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  const slow = await engine.enqueueMany(nap, Array(3).fill({ input: { ms: 300 } }))
  await scene.rows(`UPDATE triphase.job SET crash_count = 2`)
  const quick = await engine.enqueueMany(nap, Array(10).fill({ input: { ms: 0 } }))
  const worker = await scene.process({ ...BEATING, queues: { default: 5 } })
  await scene.allDone()
  expect(mostAtOnce(worker, new Set(slow.map(({ id }) => id)))).toBe(1)
  const order = worker.events('job:completed').map(({ jobId }) => jobId)
  expect(order.slice(0, 10).sort()).toEqual(quick.map(({ id }) => id).sort())
})

test.concurrent('suspects of two processes run at the same time, one in each', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  const jobs = await engine.enqueueMany(nap, Array(8).fill({ input: { ms: 100 } }))
  await scene.rows(`UPDATE triphase.job SET crash_count = 2`)
  const suspects = new Set(jobs.map(({ id }) => id))
  const workers = await Promise.all([1, 2].map(() => scene.process({ ...BEATING, queues: { default: 5 } })))
  await scene.allDone()
  for (const worker of workers) expect(mostAtOnce(worker, suspects)).toBeLessThanOrEqual(1)
})

test.concurrent('a job may be given fewer crashes, or more', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  const { id: once } = await engine.enqueue(poison, { afterMs: 0 }, { maxCrashes: 1 })
  const { id: often } = await engine.enqueue(poison, { afterMs: 0 }, { maxCrashes: 4 })
  const processes = await superviseUntilDone(scene)
  expect(processes).toHaveLength(5)
  expect(await engine.job(once)).toMatchObject({ state: 'discarded', crashCount: 1 })
  expect(await engine.job(often)).toMatchObject({ state: 'discarded', crashCount: 4 })
})

test.concurrent('the next suspect begins when the outcome of the last one is written, or its crash would count for both', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  const ended: string[] = []
  const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: ({ job }) => ended.push(job.id) })
  const engine = scene.engine({ url: proxy.url(testUrl()), tasks: [task], queues: { default: 2 } })
  const jobs = await engine.enqueueMany(task, Array(2).fill({ input: {} }))
  await scene.rows(`UPDATE triphase.job SET crash_count = 2`)
  const ack = proxy.onStatement(/\.finish_jobs\(/, 'hold-before')
  await engine.start()
  await ack.hit
  // The claims that these cause find the suspects' place taken.
  await engine.enqueueMany(task, Array(5).fill({ input: {} }))
  await eventually(() => ended.length >= 6)
  expect(ended).not.toContain(jobs[1]?.id)
  ack.release()
  await scene.allDone()
  expect(ended).toContain(jobs[1]?.id)
})
