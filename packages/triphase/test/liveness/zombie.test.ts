import { afterAll, describe, expect, test } from 'vitest'
import { defineStagedTask, defineTask, unchecked } from '../../src/index.ts'
import { startCountingApi } from '../support/counting-api.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { lasting, type PgEngine, type Scene, type StartedProcess, sceneOf } from './scene.ts'

// A process that SIGSTOP holds for longer than deadAfter, scaled: default-settings.test.ts has the 30 s.
const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const
const JOBS = 5

afterAll(killWorkers)

/** Tasks of the worker program. */
const nap = { name: 'nap', input: unchecked<{ ms: number }>() }
const hold = { name: 'hold', input: unchecked<unknown>() }
const NAP_MS = 1_500

/** Stops the process and waits until another has taken its jobs over. */
async function stopUntilRescued(sleeper: StartedProcess, other: PgEngine): Promise<void> {
  const rescued = other.telemetry.next('jobs:rescued', ({ processId }) => processId === sleeper.processId)
  sleeper.kill('SIGSTOP')
  await other.start()
  await rescued
}

async function historyOf(scene: Scene): Promise<{ id: string; claim_no: number; result: unknown }[]> {
  const rows = await scene.rows<{ id: string; claim_no: number; result: string }>(
    `SELECT id::text, claim_no, result::text FROM triphase.job_history ORDER BY job_history.id`,
  )
  return rows.map(({ id, claim_no, result }) => ({ id, claim_no, result: JSON.parse(result) }))
}

describe.concurrent('a process that was stopped, rescued and continued (scaled)', () => {
  test('fires the signals of its jobs, starts anew as another process and works on', async (context) => {
    const scene = await sceneOf(context)
    const sleeper = await scene.process({ ...BEATING, queues: { default: JOBS, own: 1 } })
    const done = defineTask({ ...hold, run: () => 'survivor' })
    const other = scene.engine({ ...BEATING, tasks: [done], queues: { default: JOBS } })
    await other.enqueueMany(done, Array(JOBS).fill({ input: {} }))
    await eventually(() => sleeper.events('job:started').length === JOBS)
    await stopUntilRescued(sleeper, other)
    await scene.allDone()
    sleeper.kill('SIGCONT')
    expect(await sleeper.event('process:lost')).toMatchObject({ aborted: JOBS })
    await eventually(() => sleeper.events('job:lost').length === JOBS)
    expect(sleeper.events('aborted').map(({ code }) => code)).toEqual(Array(JOBS).fill('CLAIM_LOST'))
    const { id } = await other.enqueue(defineTask({ ...nap, run: () => {} }), { ms: 0 }, { queue: 'own' })
    await sleeper.event('job:completed', ({ jobId }) => jobId === id)
    const [worked] = await scene.rows(`SELECT process_id FROM triphase.job_history WHERE id = $1`, [id])
    expect(Number(worked?.process_id)).toBeGreaterThan(Number(sleeper.processId))
    expect(await scene.rows(`SELECT FROM triphase.process WHERE id = $1`, [sleeper.processId])).toEqual([])
  })

  test('has its acks refused: the job that finishes as it wakes belongs to another', async (context) => {
    const scene = await sceneOf(context)
    const sleeper = await scene.process({ ...BEATING, queues: { default: JOBS } })
    const release = Promise.withResolvers<void>()
    const running = new Set<string>()
    const napHere = defineTask({
      ...nap,
      run: async ({ job }) => {
        running.add(job.id)
        await release.promise
        return 'survivor'
      },
    })
    const other = scene.engine({ ...BEATING, tasks: [napHere], queues: { default: JOBS } })
    await other.enqueueMany(napHere, Array(JOBS).fill({ input: { ms: NAP_MS } }))
    await eventually(() => sleeper.events('napping').length === JOBS)
    // Each nap is over while its process is stopped: it ends with the first timers after SIGCONT, before any beat.
    const over = lasting(NAP_MS)
    await stopUntilRescued(sleeper, other)
    await eventually(() => running.size === JOBS)
    await over
    expect(sleeper.events('napped')).toEqual([])
    sleeper.kill('SIGCONT')
    await eventually(() => sleeper.events('job:lost').length === JOBS)
    expect(sleeper.events('napped')).toHaveLength(JOBS)
    expect(sleeper.events('job:completed')).toEqual([])
    release.resolve()
    await scene.allDone()
    const expected = [...running].map((id) => ({ id, claim_no: 3, result: 'survivor' }))
    expect(await historyOf(scene)).toEqual(expected.sort((a, b) => Number(a.id) - Number(b.id)))
  })
})

interface Payment {
  scene: Scene
  sleeper: StartedProcess
  other: PgEngine
  api: Awaited<ReturnType<typeof startCountingApi>>
  jobId: string
  /** Where the other process stands: each is waited for once. */
  prepare: { reached: Promise<void>; release: () => void }
  commit: { reached: Promise<void>; release: () => void }
}

function gate(): { reached: Promise<void>; release: () => void; pass: () => Promise<void> } {
  const [reached, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  return {
    reached: reached.promise,
    release: released.resolve,
    async pass() {
      reached.resolve()
      await released.promise
    },
  }
}

/** A staged job whose process is stopped in the middle of its call; another process has the job now. */
async function stoppedWhilePaying(scene: Scene): Promise<Payment> {
  const api = await startCountingApi()
  const [prepare, commit] = [gate(), gate()]
  const paid = defineStagedTask({
    name: 'paid',
    input: unchecked<{ key: string }>(),
    prepare: () => prepare.pass(),
    call: async () => {
      await fetch(`${api.url}/call`, { method: 'POST', body: JSON.stringify({ key: 'of the survivor' }) })
      return { answer: 'of the survivor' }
    },
    commit: async ({ answer }) => {
      await commit.pass()
      return { answer, committedBy: 'survivor' }
    },
  })
  const sleeper = await scene.process({ ...BEATING, queues: { default: 1 } }, { apiUrl: api.url })
  const other = scene.engine({ ...BEATING, tasks: [paid], queues: { default: 1 } })
  const call = api.hold('of the zombie')
  const { id: jobId } = await other.enqueue(paid, { key: 'of the zombie' })
  await call.arrived
  sleeper.kill('SIGSTOP')
  await call.release({ kind: 'answer', answer: 'of the zombie' })
  await stopUntilRescued(sleeper, other)
  await prepare.reached
  return { scene, sleeper, other, api, jobId, prepare, commit }
}

describe.concurrent('the paid answer of a process that was stopped, rescued and continued (scaled)', () => {
  test('is kept when it comes first: the other process does not call', async (context) => {
    const { scene, sleeper, api, prepare, commit, jobId } = await stoppedWhilePaying(await sceneOf(context))
    sleeper.kill('SIGCONT')
    expect(await sleeper.event('job:answer-stored')).toMatchObject({ jobId, claimNo: 1, first: true })
    await sleeper.event('job:lost')
    prepare.release()
    commit.release()
    await scene.allDone()
    const answer = { answer: 'of the zombie', pid: sleeper.pid }
    expect(await historyOf(scene)).toEqual([
      { id: jobId, claim_no: 3, result: { answer, committedBy: 'survivor' } },
    ])
    expect(api.log.map(({ key }) => key)).toEqual(['of the zombie'])
    await api.close()
  })

  test('gives way when it comes second: the first answer stands, and is committed once', async (context) => {
    const { scene, sleeper, api, prepare, commit, jobId } = await stoppedWhilePaying(await sceneOf(context))
    prepare.release()
    await commit.reached
    sleeper.kill('SIGCONT')
    expect(await sleeper.event('job:answer-stored')).toMatchObject({ jobId, claimNo: 1, first: false })
    await sleeper.event('job:lost')
    commit.release()
    await scene.allDone()
    const answer = { answer: 'of the survivor' }
    expect(await historyOf(scene)).toEqual([
      { id: jobId, claim_no: 3, result: { answer, committedBy: 'survivor' } },
    ])
    expect(api.calls).toBe(2)
    await api.close()
  })
})
