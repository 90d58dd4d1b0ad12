import { describe, expect, test } from 'vitest'
import { defineTask, type Engine, memoryNotifier, pollingNotifier, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { Gate, jobIn } from '../support/jobs.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()

const LONG = { heartbeat: '30s', deadAfter: '90s' } as const

/** A task that counts how many of its jobs run at a time, and lets each go on when told. */
function counting() {
  const waiting = new Set<() => void>()
  const seen = { running: 0, most: 0, done: 0 }
  const task = defineTask({
    name: 'counting',
    input: unchecked<number>(),
    run: async () => {
      seen.most = Math.max(seen.most, ++seen.running)
      await new Promise<void>((resolve) => waiting.add(resolve))
      seen.running--
      seen.done++
    },
  })
  const finish = (count = waiting.size) => {
    for (const resolve of [...waiting].slice(0, count)) {
      waiting.delete(resolve)
      resolve()
    }
  }
  return { task, seen, finish }
}

const inputs = (count: number) => Array.from({ length: count }, (_, input) => ({ input }))

async function settings(
  engine: { telemetry: Engine<never>['telemetry'] },
  matches: object,
  act: () => Promise<void>,
) {
  const changed = engine.telemetry.next('queue:changed')
  await act()
  expect(await changed).toMatchObject(matches)
}

describe('concurrency', () => {
  test('is reached and never exceeded', async () => {
    const { task, seen, finish } = counting()
    const engine = bench.engine({ tasks: [task], queues: { default: 4 } })
    await engine.start()
    await engine.enqueueMany(task, inputs(40))
    while (seen.done < 40) {
      await eventually(() => seen.running === Math.min(4, 40 - seen.done))
      finish(1 + Math.floor(Math.random() * 4))
    }
    expect(seen.most).toBe(4)
  })

  test('is of each queue by itself', async () => {
    const { task, seen, finish } = counting()
    const engine = bench.engine({ tasks: [task], queues: { a: 2, b: 3 } })
    await engine.start()
    await engine.enqueueMany(
      task,
      inputs(10).map((job, n) => ({ ...job, queue: n % 2 ? 'a' : 'b' })),
    )
    await eventually(() => seen.running === 5)
    expect(await engine.counts()).toEqual([
      { queue: 'a', state: 'available', count: 3 },
      { queue: 'a', state: 'executing', count: 2 },
      { queue: 'b', state: 'available', count: 2 },
      { queue: 'b', state: 'executing', count: 3 },
    ])
    await eventually(() => {
      finish()
      return seen.done === 10
    })
    expect(seen.most).toBe(5)
  })

  test('far above the pool: waiting jobs hold no connection', async () => {
    const { task, seen, finish } = counting()
    const engine = bench.engine({ tasks: [task], queues: { default: 200 }, engine: { size: 2 } })
    await engine.start()
    await engine.enqueueMany(task, inputs(200))
    await eventually(() => seen.running === 200)
    await eventually(() => engine.connections().engine.inUse === 0)
    expect(engine.connections().engine.open).toBeLessThanOrEqual(2)
    finish()
    await eventually(async () => (await engine.counts()).length === 0)
  })

  test('can be set from another process, for all of them, and taken back', async () => {
    const { task, seen, finish } = counting()
    const worker = bench.engine({ tasks: [task], queues: { default: 3 }, ...LONG })
    const operator = bench.engine()
    await worker.start()
    await operator.enqueueMany(task, inputs(20))
    await eventually(() => seen.running === 3)

    await settings(worker, { queue: 'default', paused: false, concurrency: 6 }, () =>
      operator.setQueueConcurrency('default', 6),
    )
    await eventually(() => seen.running === 6)

    await settings(worker, { concurrency: 1 }, () => operator.setQueueConcurrency('default', 1))
    finish(5)
    await eventually(() => seen.running === 1)
    finish()
    await eventually(() => seen.done === 6 && seen.running === 1)

    await settings(worker, { concurrency: 3 }, () => operator.setQueueConcurrency('default', null))
    await eventually(() => seen.running === 3)
    expect(seen.most).toBe(6)
    finish()
  })

  test('of nothing claims nothing', async () => {
    const { task, seen, finish } = counting()
    const worker = bench.engine({ tasks: [task], queues: { default: 2 }, ...LONG })
    await worker.start()
    await settings(worker, { concurrency: 0 }, () => worker.setQueueConcurrency('default', 0))
    const { id } = await worker.enqueue(task, 1)
    // A claim that was under way may bring it, and hands it back.
    await jobIn(worker, id, 'available')
    expect(seen.most).toBe(0)
    await settings(worker, { concurrency: 2 }, () => worker.setQueueConcurrency('default', null))
    await eventually(() => seen.running === 1)
    finish()
    await jobIn(worker, id, 'completed')
  })

  test.each([[-1], [1.5], [Number.NaN], ['3' as never], [2 ** 31]])(
    'of %s is refused',
    async (concurrency) => {
      const refused = bench.engine().setQueueConcurrency('default', concurrency)
      await expect(refused).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
      await expect(refused).rejects.toThrow(/concurrency: a whole number/)
    },
  )
})

describe('a paused queue', () => {
  test('claims nothing, lets running jobs go on, and goes on when it is resumed', async () => {
    const { task, seen, finish } = counting()
    const worker = bench.engine({ tasks: [task], queues: { default: 1, other: 1 }, ...LONG })
    const operator = bench.engine()
    await worker.start()
    const [running, waiting] = await operator.enqueueMany(task, inputs(2))
    await eventually(() => seen.running === 1)

    await settings(worker, { queue: 'default', paused: true }, () => operator.pauseQueue('default'))
    finish()
    await jobIn(operator, running!.id, 'completed')
    const other = await operator.enqueue(task, 3, { queue: 'other' })
    await jobIn(operator, other.id, 'executing')
    expect((await operator.job(waiting!.id))?.state).toBe('available')

    await settings(worker, { queue: 'default', paused: false }, () => operator.resumeQueue('default'))
    await jobIn(operator, waiting!.id, 'executing')
    finish()
  })

  test('is paused for a process that starts, before it claims anything', async () => {
    const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => {} })
    const operator = bench.engine()
    await operator.pauseQueue('default')
    const { id } = await operator.enqueue(task, null)
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    const firstBeat = proxy.onStatement(/UPDATE \S+\.process SET beat/, 'hold-reply')
    const url = proxy.url(bench.schema.url)
    const worker = bench.engine({ url, tasks: [task], queues: { default: 1 }, notifier: memoryNotifier() })
    const paused = worker.telemetry.next('queue:changed')
    await worker.start()
    await firstBeat.hit
    // What a claim would have needed until then it has had now: a connection, and its turn.
    for (let turn = 0; turn < 5; turn++) await worker.counts()
    firstBeat.release()
    await paused
    const claims = await bench.schema.database.query('SELECT claim_no FROM triphase.job WHERE id = $1', [id])
    expect(claims).toEqual([{ claim_no: 0 }])
    await worker.stop()
    await proxy.close()
  })

  test('is paused for processes that start later, too', async () => {
    const gate = new Gate()
    const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => gate.pass() })
    const operator = bench.engine()
    await operator.pauseQueue('default')
    await operator.pauseQueue('default')
    const worker = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: 200, deadAfter: 600 })
    const paused = worker.telemetry.next('queue:changed')
    await worker.start()
    expect(await paused).toMatchObject({ queue: 'default', paused: true })
    const { id } = await operator.enqueue(task, null)
    await jobIn(operator, id, 'available')
    await operator.resumeQueue('default')
    await gate.reached
    gate.open()
    await jobIn(operator, id, 'completed')
  })

  test('goes on by the heartbeat where notifications do not work', async () => {
    const { task, seen, finish } = counting()
    const worker = bench.engine({
      tasks: [task],
      queues: { default: 1 },
      notifier: pollingNotifier({ minMs: 10, maxMs: 30 }),
      heartbeat: 150,
      deadAfter: 450,
    })
    const operator = bench.engine({ notifier: pollingNotifier() })
    await worker.start()
    await settings(worker, { paused: true }, () => operator.pauseQueue('default'))
    const { id } = await operator.enqueue(task, 1)
    await settings(worker, { paused: false }, () => operator.resumeQueue('default'))
    await eventually(() => seen.running === 1)
    finish()
    await jobIn(operator, id, 'completed')
  })

  test.each([[''], ['a b'], ['a'.repeat(101)], [null as never]])('cannot have the name %j', async (name) => {
    const engine = bench.engine()
    const refused = { code: 'INVALID_OPTIONS', message: expect.stringMatching(/^queue: 1 to 100 letters/) }
    await expect(engine.pauseQueue(name)).rejects.toMatchObject(refused)
    await expect(engine.resumeQueue(name)).rejects.toMatchObject(refused)
    await expect(engine.setQueueConcurrency(name, 1)).rejects.toMatchObject(refused)
  })

  test('that nobody works on can be paused and resumed', async () => {
    const engine = bench.engine()
    await engine.resumeQueue('nobody')
    await engine.pauseQueue('nobody')
    await engine.resumeQueue('nobody')
  })
})
