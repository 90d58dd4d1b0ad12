import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { cancel, defineTask, pollingNotifier, snooze, TriphaseError, unchecked } from '../../src/index.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { type FaultHandle, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { Gate, jobIn } from '../support/jobs.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()

const never = defineTask({ name: 'never', input: unchecked<null>(), run: () => null })

/** A task that waits for its signal, says when it has started, and keeps the signal's reason. */
function waiting(ending: (reason: unknown) => unknown = (reason) => Promise.reject(reason)) {
  const started = Promise.withResolvers<void>()
  const fired = Promise.withResolvers<{ reason: unknown; at: number }>()
  const task = defineTask({
    name: 'waiting',
    input: unchecked<null>(),
    run: ({ signal }) => {
      started.resolve()
      return new Promise((resolve, reject) => {
        signal.addEventListener('abort', () => {
          fired.resolve({ reason: signal.reason, at: performance.now() })
          Promise.resolve()
            .then(() => ending(signal.reason))
            .then(resolve, reject)
        })
      })
    },
  })
  return { task, started: started.promise, fired: fired.promise }
}

describe('a waiting job', () => {
  test.each([
    ['available', {}],
    ['scheduled', { delay: '1h' }],
  ] as const)('that is %s is cancelled at once', async (_state, options) => {
    const engine = bench.engine()
    const { id } = await engine.enqueue(never, null, options)
    expect(await engine.cancel(id)).toBe('cancelled')
    expect(await engine.job(id)).toMatchObject({
      state: 'cancelled',
      attempt: 0,
      error: { code: 'CANCELLED', message: 'cancelled on request' },
    })
    expect(await engine.counts()).toEqual([])
    expect(await engine.cancel(id)).toBe('not-found')
  })

  test('that failed and waits for its next attempt is cancelled at once', async () => {
    const fail = defineTask({
      name: 'fail',
      input: unchecked<null>(),
      backoff: { initial: '1h' },
      run: () => Promise.reject(new Error('not yet')),
    })
    const engine = bench.engine({ tasks: [fail], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(fail, null)
    await jobIn(engine, id, 'retryable')
    expect(await engine.cancel(id)).toBe('cancelled')
    expect(await engine.job(id)).toMatchObject({ state: 'cancelled', attempt: 1 })
  })

  test.each([['0'], ['123456789012345678'], [''], ['abc'], ['-1'], ['1; DROP TABLE job'], ['9'.repeat(30)]])(
    'that does not exist (%s) is not found',
    async (id) => {
      const engine = bench.engine()
      expect(await engine.cancel(id)).toBe('not-found')
      expect(await engine.job(id)).toBeNull()
      expect(await engine.attempts(id)).toEqual([])
    },
  )
})

describe('a running job', () => {
  test('of another process is told within a second where notifications work', async () => {
    const { task, started, fired } = waiting()
    const worker = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: '30s', deadAfter: '90s' })
    const client = bench.engine()
    await worker.start()
    const { id } = await client.enqueue(task, null)
    await started
    const asked = performance.now()
    expect(await client.cancel(id)).toBe('requested')
    const { reason, at } = await fired
    expect(at - asked).toBeLessThan(1_000)
    expect(reason).toBeInstanceOf(TriphaseError)
    expect(reason).toMatchObject({ code: 'CANCELLED' })
    const job = await jobIn(client, id, 'cancelled')
    expect(job).toMatchObject({ attempt: 1, error: { code: 'CANCELLED' } })
  })

  test('of another process is told by the heartbeat where they do not', async () => {
    const { task, started, fired } = waiting()
    const notifier = pollingNotifier({ minMs: 20, maxMs: 50 })
    const worker = bench.engine({
      tasks: [task],
      queues: { default: 1 },
      notifier,
      heartbeat: 300,
      deadAfter: 900,
    })
    const client = bench.engine({ notifier: pollingNotifier() })
    await worker.start()
    const { id } = await client.enqueue(task, null)
    await started
    const asked = performance.now()
    expect(await client.cancel(id)).toBe('requested')
    expect((await fired).at - asked).toBeLessThan(2_000)
    await jobIn(client, id, 'cancelled')
  })

  test('of this process is told at once', async () => {
    const { task, started, fired } = waiting()
    const engine = bench.engine({ tasks: [task], queues: { default: 1 }, heartbeat: '30s', deadAfter: '90s' })
    await engine.start()
    const cancelled = engine.telemetry.next('job:cancelled')
    const { id } = await engine.enqueue(task, null)
    await started
    expect(await engine.cancel(id)).toBe('requested')
    await fired
    expect(await cancelled).toMatchObject({ jobId: id, reason: 'cancelled on request' })
  })

  test('that finishes all the same is completed: what it did is not thrown away', async () => {
    const { task, started } = waiting(() => 'done already')
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    await started
    await engine.cancel(id)
    expect((await jobIn(engine, id, 'completed')).result).toBe('done already')
  })

  test('that ignores its signal is cancelled after the grace, and keeps its slot', async () => {
    const gate = new Gate()
    const task = defineTask({ name: 'deaf', input: unchecked<null>(), run: () => gate.pass() })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 }, abortGrace: 30 })
    const leaked = engine.telemetry.next('job:leaked')
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    await gate.reached
    await engine.cancel(id)
    expect(await leaked).toMatchObject({ jobId: id, reason: 'cancelled on request' })
    await jobIn(engine, id, 'cancelled')
    const next = await engine.enqueue(task, null)
    expect(await engine.job(next.id)).toMatchObject({ state: 'available' })
    gate.open()
    await jobIn(engine, next.id, 'completed')
  })

  test('that snoozes as it is being cancelled is cancelled while it waits', async () => {
    const { task, started } = waiting(() => snooze('1h'))
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    await started
    expect(await engine.cancel(id)).toBe('requested')
    await jobIn(engine, id, 'cancelled')
  })

  test('cancelled by several at once ends once', async () => {
    const { task, started } = waiting()
    const worker = bench.engine({ tasks: [task], queues: { default: 1 } })
    const client = bench.engine()
    const ends: string[] = []
    worker.telemetry.onAny((name) => {
      if (name === 'job:cancelled' || name === 'job:lost') ends.push(name)
    })
    await worker.start()
    const { id } = await client.enqueue(task, null)
    await started
    const outcomes = await Promise.all(Array.from({ length: 10 }, () => client.cancel(id)))
    expect(new Set(outcomes)).toContain('requested')
    await jobIn(client, id, 'cancelled')
    await worker.stop()
    expect(ends).toEqual(['job:cancelled'])
  })
})

describe('news of a cancel that comes late', () => {
  /** A job whose first run ends as cancelled by its handler, and that was brought back and runs again. */
  async function twice(options: { url?: string; onFirst?: (id: string) => Promise<unknown> }) {
    const gates = [new Gate(), new Gate()]
    let calls = 0
    const task = defineTask({
      name: 'task',
      input: unchecked<null>(),
      run: async ({ signal }) => {
        const call = calls++
        await gates[call]!.pass()
        signal.throwIfAborted()
        return call === 0 ? cancel('not now') : 'done'
      },
    })
    const worker = bench.engine({
      tasks: [task],
      queues: { default: 1 },
      heartbeat: '30s',
      deadAfter: '90s',
      ...(options.url ? { url: options.url, directUrl: testDatabaseUrl() } : {}),
    })
    await worker.start()
    const client = bench.engine()
    const { id } = await client.enqueue(task, null)
    await gates[0]!.reached
    await options.onFirst?.(id)
    gates[0]!.open()
    await jobIn(client, id, 'cancelled')
    expect(await client.retry(id)).toBe(true)
    await gates[1]!.reached
    return { id, client, worker, finish: () => gates[1]!.open() }
  }

  const beats = async () => {
    const rows = await bench.schema.database.query<{ beat: string }>('SELECT beat FROM triphase.process')
    return rows.reduce((sum, { beat }) => sum + Number(beat), 0)
  }

  test('as a hint: there is no request, so the job goes on', async () => {
    const { id, client, finish } = await twice({})
    const { database, schema } = bench.schema
    const before = await beats()
    await database.query('SELECT pg_notify($1, $2)', [
      `triphase_${schema}`,
      JSON.stringify({ kind: 'cancel', jobId: id }),
    ])
    await eventually(async () => (await beats()) > before)
    finish()
    expect((await jobIn(client, id, 'completed')).result).toBe('done')
  })

  test('as the reply to a heartbeat: it is about an earlier claim, so the job goes on', async () => {
    const proxy = await startFaultProxy(serverAddress(bench.schema.url))
    const held: FaultHandle[] = []
    const { id, client, worker, finish } = await twice({
      url: proxy.url(bench.schema.url),
      onFirst: async (first) => {
        held.push(proxy.onStatement(/SET beat = beat \+ 1/, 'hold-reply'))
        expect(await bench.engine().cancel(first)).toBe('requested')
        await held[0]!.hit
      },
    })
    held[0]!.release()
    const before = await beats()
    await client.pauseQueue('default')
    await eventually(async () => (await beats()) > before)
    finish()
    expect((await jobIn(client, id, 'completed')).result).toBe('done')
    await worker.stop({ graceMs: 0 })
    await proxy.close()
  })
})

test('one cancelled job leaves those beside it alone', async () => {
  const finish = Promise.withResolvers<void>()
  const running = Promise.withResolvers<void>()
  let count = 0
  const task = defineTask({
    name: 'side-by-side',
    input: unchecked<number>(),
    run: async ({ signal }) => {
      if (++count === 3) running.resolve()
      await Promise.race([finish.promise, delay(20_000, undefined, { signal })])
    },
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 3 } })
  await engine.start()
  const jobs = await engine.enqueueMany(task, [{ input: 1 }, { input: 2 }, { input: 3 }])
  await running.promise
  await engine.cancel(jobs[1]!.id)
  await jobIn(engine, jobs[1]!.id, 'cancelled')
  finish.resolve()
  await jobIn(engine, jobs[0]!.id, 'completed')
  await jobIn(engine, jobs[2]!.id, 'completed')
})
