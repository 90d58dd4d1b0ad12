import { afterAll, describe, expect, test } from 'vitest'
import { defineTask, type Task, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import type { FaultProxy } from '../support/fault-proxy.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { lasting, type Scene, sceneOf } from './scene.ts'

// Five times deadAfter: to these settings what a minute is to the defaults.
const BEATING = { heartbeat: '400ms', deadAfter: '1200ms' } as const
const OUTAGE_MS = 6_000
const JOBS = 20
/** On a machine that is busy with other things. */
const SLOW = { timeout: 60_000 }

afterAll(killWorkers)

interface HeldJobs {
  task: Task<unknown>
  runs: Map<string, number>
  release: () => void
}

/** Jobs that count their runs and wait until they are released. */
function heldJobs(): HeldJobs {
  const { promise, resolve } = Promise.withResolvers<void>()
  const runs = new Map<string, number>()
  const task = defineTask({
    name: 'held',
    input: unchecked<unknown>(),
    run: async ({ job }) => {
      runs.set(job.id, (runs.get(job.id) ?? 0) + 1)
      await promise
    },
  })
  return { task, runs, release: resolve }
}

interface Outage {
  begin(proxy: FaultProxy): void
  end(proxy: FaultProxy): void
}

const OUTAGES: Record<string, Outage> = {
  'a network that passes nothing': {
    begin: (proxy) => proxy.freeze(true),
    end: (proxy) => proxy.freeze(false),
  },
  'a server that ends all connections and takes none': {
    begin: (proxy) => {
      proxy.refuse(true)
      proxy.cutAll()
    },
    end: (proxy) => proxy.refuse(false),
  },
  'a server that resets all connections, and later again': {
    begin: (proxy) => proxy.cutAll({ reset: true }),
    end: (proxy) => proxy.cutAll({ reset: true }),
  },
}

/** Three engines run jobs, the outage comes and goes, and they beat on. */
async function through(scene: Scene, outage: Outage): Promise<void> {
  const proxy = await scene.proxy()
  const { task, runs, release } = heldJobs()
  const options = { ...BEATING, url: proxy.url(testUrl()), tasks: [task], queues: { default: JOBS } }
  const engines = [scene.engine(options), scene.engine(options), scene.engine(options)]
  const alarms = scene.alarmsOf(engines)
  // Where a connection takes longer to open than such a short beat may, a start fails, and is made again.
  await eventually(() => Promise.all(engines.map((engine) => engine.start())))
  await scene.engine().enqueueMany(task, Array(JOBS).fill({ input: {} }))
  await eventually(() => runs.size === JOBS)
  outage.begin(proxy)
  await lasting(OUTAGE_MS)
  outage.end(proxy)
  await scene.beats(10)
  expect(alarms).toEqual([])
  release()
  await scene.allDone()
  const history = await scene.rows(`SELECT claim_no, attempt, crash_count, state FROM triphase.job_history`)
  expect(history).toEqual(Array(JOBS).fill({ claim_no: 1, attempt: 1, crash_count: 0, state: 'completed' }))
  expect([...runs.values()]).toEqual(Array(JOBS).fill(1))
}

describe.concurrent('nobody rescues the living after an outage of five times deadAfter', SLOW, () => {
  test.for(Object.entries(OUTAGES))('%s', async ([, outage], context) => {
    await through(await sceneOf(context), outage)
  })

  test('one process alone is cut off, and finds itself rescued once the network is back', async (context) => {
    const scene = await sceneOf(context)
    const proxy = await scene.proxy()
    const { task, runs, release } = heldJobs()
    const cutOff = scene.engine({
      ...BEATING,
      url: proxy.url(testUrl()),
      tasks: [task],
      queues: { default: JOBS },
    })
    await cutOff.start()
    await cutOff.enqueueMany(task, Array(JOBS).fill({ input: {} }))
    await eventually(() => runs.size === JOBS)
    proxy.freeze(true)
    const peer = scene.engine({ ...BEATING, tasks: [task], queues: { default: JOBS } })
    const rescued = peer.telemetry.next('jobs:rescued')
    await peer.start()
    expect((await rescued).again).toHaveLength(JOBS)
    await eventually(() => expect([...runs.values()]).toEqual(Array(JOBS).fill(2)))
    const lost = cutOff.telemetry.next('process:lost')
    proxy.freeze(false)
    expect(await lost).toMatchObject({ aborted: JOBS })
    release()
    await scene.allDone()
    const history = await scene.rows(`SELECT claim_no, crash_count, state FROM triphase.job_history`)
    expect(history).toEqual(Array(JOBS).fill({ claim_no: 3, crash_count: 1, state: 'completed' }))
  })
})

describe.concurrent(
  'nobody rescues the living after a sleep of the whole machine of five times deadAfter',
  SLOW,
  () => {
    test('all processes are stopped and continued', async (context) => {
      const scene = await sceneOf(context)
      const queues = { default: JOBS }
      const processes = await Promise.all([1, 2, 3].map(() => scene.process({ ...BEATING, queues })))
      const nap = { name: 'nap', input: unchecked<{ ms: number }>(), options: {} }
      await scene.engine().enqueueMany(nap, Array(JOBS).fill({ input: { ms: OUTAGE_MS + 500 } }))
      await eventually(() => processes.flatMap((process) => process.events('job:started')).length === JOBS)
      for (const process of processes) process.kill('SIGSTOP')
      await lasting(OUTAGE_MS)
      for (const process of processes) process.kill('SIGCONT')
      await scene.beats(10)
      await scene.allDone()
      const history = await scene.rows(`SELECT claim_no, crash_count, state FROM triphase.job_history`)
      expect(history).toEqual(Array(JOBS).fill({ claim_no: 1, crash_count: 0, state: 'completed' }))
      for (const process of processes) {
        expect(process.events('jobs:rescued')).toEqual([])
        expect(process.events('process:lost')).toEqual([])
      }
    })

    test('processes that wake one after the other give each other the whole time to beat', async (context) => {
      const scene = await sceneOf(context)
      // What the first sees when it wakes must not count as silence of the second, which is still asleep.
      const beating = { heartbeat: '400ms', deadAfter: '2400ms' } as const
      const [first, second] = await Promise.all([scene.process(beating), scene.process(beating)])
      await scene.beats(3)
      for (const process of [first, second]) process.kill('SIGSTOP')
      await lasting(2_600)
      const beatOf = async (id: string) => {
        const [row] = await scene.rows<{ beat: string }>(`SELECT beat FROM triphase.process WHERE id = $1`, [
          id,
        ])
        return Number(row?.beat)
      }
      const before = await beatOf(first.processId)
      first.kill('SIGCONT')
      await eventually(async () => (await beatOf(first.processId)) >= before + 4)
      second.kill('SIGCONT')
      await scene.beats(4)
      for (const process of [first, second]) expect(process.events('process:lost')).toEqual([])
    })
  },
)
