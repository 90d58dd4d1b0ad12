import { describe, expect, test } from 'vitest'
import { createEngine, defineSweep, defineTask, memoryNotifier, unchecked } from '../src/index.ts'
import { useEngines } from './support/engines.ts'
import { serverAddress, startFaultProxy } from './support/fault-proxy.ts'
import { Gate, jobIn } from './support/jobs.ts'
import { eventually } from './support/processes.ts'

const bench = useEngines()

const double = defineTask({
  name: 'double',
  input: unchecked<{ n: number }>(),
  run: ({ input }) => input.n * 2,
})

test('a job is enqueued, run and completed, and its result is kept', async () => {
  const engine = bench.engine({ tasks: [double], queues: { default: 2 } })
  const completed = engine.telemetry.next('job:completed')
  await engine.start()
  const { id, created } = await engine.enqueue(double, { n: 21 })
  expect(created).toBe(true)
  expect(await completed).toMatchObject({ jobId: id, attempt: 1, claimNo: 1, result: 42 })
  expect(await engine.job(id)).toMatchObject({ state: 'completed', result: 42, input: { n: 21 }, attempt: 1 })
})

test('a job goes through its states, each with its event', async () => {
  const gate = new Gate()
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => gate.pass() })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  const names: string[] = []
  engine.telemetry.onAny((name) => name.startsWith('job:') && names.push(name))
  await engine.start()
  const { id } = await engine.enqueue(task, null, { delay: '50ms' })
  expect(await engine.job(id)).toMatchObject({ state: 'scheduled', claimedAt: null })
  await gate.reached
  expect(await engine.job(id)).toMatchObject({ state: 'executing', attempt: 1, claimedAt: expect.any(Date) })
  gate.open()
  const job = await jobIn(engine, id, 'completed')
  expect(job.finishedAt!.getTime()).toBeGreaterThanOrEqual(job.claimedAt!.getTime())
  await eventually(() => expect(names).toEqual(['job:enqueued', 'job:started', 'job:completed']))
})

test('two engines share a queue: every job runs once', async () => {
  const runs: number[] = []
  const task = defineTask({
    name: 'task',
    input: unchecked<number>(),
    run: async ({ input }) => {
      runs.push(input)
    },
  })
  const engines = [1, 2].map(() => bench.engine({ tasks: [task], queues: { default: 7 } }))
  await Promise.all(engines.map((engine) => engine.start()))
  const inputs = Array.from({ length: 500 }, (_, input) => ({ input }))
  for (let n = 0; n < 500; n += 50) await engines[n % 2]!.enqueueMany(task, inputs.slice(n, n + 50))
  await eventually(async () => (await engines[0]!.counts()).length === 0)
  expect(runs.toSorted((a, b) => a - b)).toEqual(inputs.map(({ input }) => input))
})

test('an engine says which schema, queues and sweeps it has', () => {
  const sweep = defineSweep({ name: 'sweep', table: { name: 'files', key: 'id' }, each: async () => null })
  const engine = bench.engine({
    tasks: [double, sweep],
    queues: { default: 2, slow: { concurrency: 1, timeout: '5m' } },
  })
  expect(engine.schema).toBe(bench.schema.schema)
  expect(engine.sweeps).toEqual([sweep])
  expect(Object.fromEntries(engine.queues)).toEqual({
    default: { concurrency: 2, timeoutMs: 60_000 },
    slow: { concurrency: 1, timeoutMs: 300_000 },
  })
})

test('an engine started on other queues works on these alone', async () => {
  const engine = bench.engine({ tasks: [double], queues: { default: 2 } })
  await expect(engine.start({ queues: { 'no queue': 0 } })).rejects.toMatchObject({
    code: 'INVALID_CONFIG',
    message: expect.stringMatching(/no queue.*concurrency/s),
  })
  await engine.start({ queues: { other: 1 } })
  const left = await engine.enqueue(double, { n: 1 })
  const done = await engine.enqueue(double, { n: 2 }, { queue: 'other' })
  await jobIn(engine, done.id, 'completed')
  expect(await engine.job(left.id)).toMatchObject({ state: 'available' })
  expect(await bench.schema.database.query(`SELECT queues::text FROM triphase.process`)).toEqual([
    { queues: '["other"]' },
  ])
})

describe('start and stop', () => {
  test('starting twice is starting once', async () => {
    const engine = bench.engine({ tasks: [double], queues: { default: 1 } })
    await Promise.all([engine.start(), engine.start()])
    await engine.start()
    expect(await bench.schema.database.query('SELECT id FROM triphase.process')).toHaveLength(1)
  })

  test('stopping is leaving: no process, no connection, nothing held', async () => {
    const name = `leaving-${bench.schema.schema}`
    const engine = bench.engine({ tasks: [double], queues: { default: 1 }, name })
    await engine.start()
    const { id } = await engine.enqueue(double, { n: 1 })
    await jobIn(engine, id, 'completed')
    await Promise.all([engine.stop(), engine.stop()])
    await engine.stop()
    const { database } = bench.schema
    expect(await database.query('SELECT FROM triphase.process')).toEqual([])
    const open = 'SELECT application_name FROM pg_stat_activity WHERE application_name LIKE $1'
    await eventually(async () => expect(await database.query(open, [`${name}%`])).toEqual([]))
  })

  test('an engine that never started can be stopped', async () => {
    await bench.engine().stop()
    const engine = bench.engine()
    await engine.enqueue(double, { n: 1 })
    await engine.stop()
  })

  test('a stopped engine says so', async () => {
    const engine = bench.engine()
    await engine.stop()
    const calls = [
      engine.start(),
      engine.enqueue(double, { n: 1 }),
      engine.job('1'),
      engine.cancel('1'),
      engine.transaction(async () => {}),
    ]
    const outcomes = await Promise.allSettled(calls)
    const refused = { status: 'rejected', reason: { code: 'ENGINE_NOT_RUNNING' } }
    expect(outcomes).toMatchObject(calls.map(() => refused))
  })

  test('a handler can enqueue while its engine stops', async () => {
    const gate = new Gate()
    const task = defineTask({
      name: 'task',
      input: unchecked<null>(),
      run: async () => {
        await gate.pass()
        return (await engine.enqueue(double, { n: 1 }, { queue: 'next' })).id
      },
    })
    const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
    const watcher = bench.engine()
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    await gate.reached
    const stopped = engine.stop({ graceMs: 20_000 })
    gate.open()
    await stopped
    const job = await jobIn(watcher, id, 'completed')
    expect(await watcher.job(job.result as string)).toMatchObject({ state: 'available', queue: 'next' })
  })

  test('a start that fails can be tried again', async () => {
    const { url } = bench.schema
    const proxy = await startFaultProxy(serverAddress(url))
    proxy.refuse(true)
    const engine = bench.engine({ url: proxy.url(url), tasks: [double], queues: { default: 1 } })
    await expect(engine.start()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    proxy.refuse(false)
    await engine.start()
    const { id } = await engine.enqueue(double, { n: 2 })
    expect((await jobIn(engine, id, 'completed')).result).toBe(4)
    await engine.stop()
    await proxy.close()
  })

  test('a schema that was never migrated is named, with the remedy', async () => {
    const engine = createEngine({ url: bench.schema.url, schema: 'triphase_never_made' })
    const refused = {
      code: 'MIGRATION_NEEDED',
      message: expect.stringMatching(/triphase_never_made.*engine\.migrate/),
    }
    await expect(engine.start()).rejects.toMatchObject(refused)
    await expect(engine.enqueue(double, { n: 1 })).rejects.toMatchObject(refused)
    await expect(engine.transaction((tx) => engine.enqueue(double, { n: 1 }, { tx }))).rejects.toMatchObject(
      refused,
    )
    await expect(engine.counts()).rejects.toMatchObject(refused)
    const sweep = defineSweep({
      name: 'sweep',
      table: { name: 'records', key: 'id' },
      each: async () => null,
    })
    await expect(engine.sweep(sweep).status()).rejects.toMatchObject(refused)
    await expect(engine.sweep(sweep).pause()).rejects.toMatchObject(refused)
    await engine.stop()
  })

  test('a notifier that listens for another engine is refused, until that one has stopped', async () => {
    const notifier = memoryNotifier()
    const failing = createEngine({ url: bench.schema.url, schema: 'triphase_never_made', notifier })
    await expect(failing.start()).rejects.toMatchObject({ code: 'MIGRATION_NEEDED' })
    const [first, second] = [bench.engine({ notifier }), bench.engine({ notifier })]
    await first.start()
    const refused = { code: 'INVALID_CONFIG', message: expect.stringMatching(/^notifier: another engine/) }
    await expect(second.start()).rejects.toMatchObject(refused)
    await first.stop()
    await second.start()
    await failing.stop()
  })
})

test.each([
  [{ alow: [] }, /alow: there is no such option/],
  [{ allow: 'localhost' }, /allow: a list of hosts/],
  [{ maxHold: 'long' }, /maxHold: a length of time/],
  [{ mode: 'off' }, /mode: it belongs to the engine/],
])('a transaction with %j is refused before it is opened', async (options, message) => {
  const opened = bench.engine().transaction(() => expect.fail('it was opened'), options as never)
  await expect(opened).rejects.toMatchObject({
    code: 'INVALID_OPTIONS',
    message: expect.stringMatching(message),
  })
})

test('an engine without queues enqueues and looks, and runs nothing', async () => {
  const client = bench.engine({ tasks: [double] })
  await client.start()
  const { id } = await client.enqueue(double, { n: 3 })
  const worker = bench.engine({ tasks: [double], queues: { default: 1 } })
  const started = worker.telemetry.next('job:started')
  expect(await client.job(id)).toMatchObject({ state: 'available' })
  await worker.start()
  expect((await started).jobId).toBe(id)
})

test('what is no task cannot be enqueued, and that is said', async () => {
  const engine = bench.engine()
  const refused = (what: RegExp) => ({ code: 'INVALID_INPUT', message: expect.stringMatching(what) })
  await expect(engine.enqueue(undefined as unknown as typeof double, { n: 1 })).rejects.toMatchObject(
    refused(/no task .* but undefined, as in a circle/),
  )
  await expect(engine.enqueueMany({} as typeof double, [])).rejects.toMatchObject(
    refused(/no task .* but object/),
  )
})

test('whatever a schema throws is what enqueue rejects with', async () => {
  const validate = () => {
    throw null
  }
  const input = { '~standard': { version: 1 as const, vendor: 'own', validate } }
  const task = { name: 'task', input, options: {} }
  await expect(bench.engine().enqueue(task, null as never)).rejects.toBe(null)
})

test('connections are counted by pool, and are where their names say', async () => {
  const name = `counted-${bench.schema.schema}`
  const engine = bench.engine({ tasks: [double], queues: { default: 1 }, name, application: { size: 4 } })
  await engine.start()
  await engine.transaction(async (tx) => {
    await tx.query('SELECT 1')
    // What the start looks at takes a connection of each pool for a moment.
    await eventually(() =>
      expect(engine.connections()).toMatchObject({
        engine: { size: 3, waiting: 0 },
        application: { size: 4, inUse: 1, waiting: 0 },
      }),
    )
    expect(engine.connections().application.open).toBeGreaterThanOrEqual(1)
  })
  const names = await bench.schema.database.query<{ name: string }>(
    'SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE application_name LIKE $1',
    [`${name}%`],
  )
  expect(names.map((row) => row.name).toSorted()).toEqual([name, `${name}-engine`])
})
