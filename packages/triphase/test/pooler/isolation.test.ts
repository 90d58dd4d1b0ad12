// A busy application never starves the queue, and a busy queue never the application.
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { lasting, type PgEngine } from '../liveness/scene.ts'
import { NO_PGBOUNCER } from '../support/pgbouncer.ts'
import { eventually } from '../support/processes.ts'
import { type PooledScene, pooledScene } from './pooled-scene.ts'

/** To a limit of 1.2 s what 30 s are to the default of 12 s. */
const BEATING = { heartbeat: '400ms', deadAfter: '1200ms' } as const
const EXHAUSTED_MS = 3_000
const POOL = 3
const HANDLERS = 12
const ACKS = 10_000

const WAYS: [string, (it: PooledScene) => PooledScene['urls']][] = [
  ['directly', (it) => it.direct],
  ['through PgBouncer', (it) => it.urls],
]

const quick = defineTask({ name: 'quick', input: unchecked<null>(), run: () => 'done' })

/** Waits for its signal, and uses no connection. */
const patient = defineTask({
  name: 'patient',
  input: unchecked<null>(),
  run: ({ signal }) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
})

/** A handler that holds a connection of the application for as long as it likes. */
function greedy(engine: () => PgEngine, release: Promise<void>) {
  return defineTask({
    name: 'greedy',
    input: unchecked<null>(),
    run: () =>
      engine().transaction(async (tx) => {
        await tx.query('SELECT 1')
        await release
      }),
  })
}

function expectExhausted(engines: readonly PgEngine[]): void {
  for (const engine of engines) {
    const { application } = engine.connections()
    expect(application).toMatchObject({ size: POOL, inUse: POOL })
    expect(application!.waiting).toBeGreaterThanOrEqual(HANDLERS - POOL)
  }
}

describe.skipIf(NO_PGBOUNCER).each(WAYS)('%s', (_way, urlsOf) => {
  test('with every connection of the application held for 2.5 times the limit, claims, heartbeats, acks and cancels go on', async (context) => {
    const it = await pooledScene(context, { settings: { default_pool_size: POOL } })
    const { scene } = it
    const urls = urlsOf(it)
    const name = `isolated ${randomBytes(4).toString('hex')}`
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    const engines: PgEngine[] = [1, 2].map((number) =>
      scene.engine({
        ...BEATING,
        name,
        guard: { mode: 'off' }, // It would refuse what these handlers do.
        engine: { ...urls.engine, size: POOL },
        application: { ...urls.application, size: POOL },
        tasks: [quick, patient, greedy(() => engines[number - 1]!, released)],
        queues: { greedy: HANDLERS, quick: 2, patient: 1 },
      }),
    )
    const alarms = scene.alarmsOf(engines)
    await Promise.all(engines.map((engine) => engine.start()))
    const [engine] = engines as [PgEngine]
    const greed = { name: 'greedy', input: unchecked<null>(), options: {} }
    const held = await engine.enqueueMany(greed, Array(2 * HANDLERS).fill({ input: null, queue: 'greedy' }))
    await eventually(() => expectExhausted(engines))

    const until = performance.now() + EXHAUSTED_MS
    let done = 0
    while (performance.now() < until) {
      const { id } = await engine.enqueue(quick, null, { queue: 'quick' })
      const running = await engine.enqueue(patient, null, { queue: 'patient' })
      await eventually(async () => (await engine.job(running.id))?.state === 'executing')
      expect(await engine.cancel(running.id)).toBe('requested')
      await eventually(async () => (await engine.job(running.id))?.state === 'cancelled')
      await eventually(async () => (await engine.job(id))?.state === 'completed')
      done++
      expectExhausted(engines)
    }
    await scene.beats(2)
    expect(done).toBeGreaterThan(1)
    const names = await scene.rows<{ name: string }>(
      'SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE application_name LIKE $1',
      [`${name}%`],
    )
    expect(names.map((row) => row.name)).toEqual(expect.arrayContaining([name, `${name}-engine`]))
    release()
    await scene.allDone()
    const results = await scene.rows<{ id: string }>(
      `SELECT id::text FROM triphase.job_history WHERE task = 'greedy' AND state = 'completed' AND claim_no = 1 ORDER BY job_history.id`,
    )
    expect(results.map(({ id }) => id)).toEqual(held.map(({ id }) => id))
    expect(alarms).toEqual([])
  })

  test(`a burst of ${ACKS} acks leaves the application its connections`, async (context) => {
    const it = await pooledScene(context, { settings: { default_pool_size: POOL } })
    const { scene } = it
    const urls = urlsOf(it)
    const engine = scene.engine({
      engine: { ...urls.engine, size: POOL },
      application: { ...urls.application, size: POOL },
      tasks: [quick],
      queues: { default: 100 },
    })
    const jobs = Array(ACKS).fill({ input: null })
    await engine.enqueueMany(quick, jobs)
    let completed = 0
    engine.telemetry.on('job:completed', () => completed++)
    await engine.start()
    const waits: number[] = []
    while (completed < ACKS) {
      const asked = performance.now()
      await engine.transaction(async (tx) => {
        await tx.query('SELECT 1')
        waits.push(performance.now() - asked)
      })
      expect(engine.connections().application?.waiting).toBe(0)
      await lasting(1)
    }
    expect(await scene.rows(`SELECT FROM triphase.job_history WHERE state = 'completed'`)).toHaveLength(ACKS)
    // It is over in a fraction of a second.
    expect(waits.length).toBeGreaterThan(5)
    context.annotate(`waits of the application: p50 ${at(waits, 0.5)} ms, p99 ${at(waits, 0.99)} ms`)
  })
})

function at(values: number[], part: number): string {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * part)]!.toFixed(1)
}
