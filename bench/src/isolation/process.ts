import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { createEngine, defineTask, type Engine, unchecked } from 'triphase'
import type { Conversation } from '../support/conversation.ts'
import { quantile } from '../support/spread.ts'
import { type Figures, runSubject } from '../support/subject.ts'
import { Checkouts } from './checkouts.ts'

export interface IsolationOrder {
  name: string
  engine: string
  application: string
  directUrl: string
  /** `acks-elsewhere`: acks whose bursts are told, for an application in another process. */
  disturbance: 'none' | 'application' | 'acks' | 'acks-elsewhere'
  seconds: number
  /** Bursts of acks, and jobs of each. */
  bursts: number
  jobs: number
}

export interface IsolationFound {
  figures: Figures
  faults: string[]
}

/** As many as the application pool has connections, three times. */
const GREEDY = 30
const input = unchecked<null>()

const quick = defineTask({ name: 'quick', input, run: () => 'done' })

/** Waits for its signal, and uses no connection. */
const patient = defineTask({
  name: 'patient',
  input,
  run: ({ signal }) =>
    new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
})

function alarmsOf({ telemetry }: Engine<pg.PoolClient>): string[] {
  const heard: string[] = []
  for (const name of ['jobs:rescued', 'process:lost', 'job:lost', 'job:retried', 'heartbeat:failed'] as const)
    telemetry.on(name, () => heard.push(name))
  return heard
}

async function exhaust(engine: Engine<pg.PoolClient>): Promise<void> {
  const greedy = { name: 'greedy', input, options: {} }
  await engine.enqueueMany(greedy, Array(GREEDY).fill({ input: null, queue: 'greedy' }))
  const isExhausted = () => {
    const { inUse, size, waiting } = engine.connections().application
    return inUse === size && inUse + waiting >= GREEDY
  }
  while (!isExhausted()) await delay(5)
}

async function drained(engine: Engine<pg.PoolClient>): Promise<void> {
  while ((await engine.counts()).length > 0) await delay(20)
}

const PAUSE_MS = 20

/** How long what the engine does takes. */
class Latencies {
  readonly #engine: Engine<pg.PoolClient>
  readonly #ms = {
    job: [] as number[],
    claim: [] as number[],
    ack: [] as number[],
    cancel: [] as number[],
  }

  constructor(engine: Engine<pg.PoolClient>) {
    this.#engine = engine
    const { telemetry } = engine
    telemetry.on('queue:claimed', ({ queue, durationMs }) => {
      if (queue === 'quick') this.#ms.claim.push(durationMs)
    })
  }

  /** What was measured so far was to warm up. */
  forget(): void {
    for (const values of Object.values(this.#ms)) values.length = 0
  }

  figures(): Figures {
    return Object.fromEntries(
      Object.entries(this.#ms).flatMap(([name, values]) =>
        values.length === 0
          ? []
          : [
              [`${name}P50`, quantile(values, 0.5)],
              [`${name}P99`, quantile(values, 0.99)],
              [`${name}Max`, Math.max(...values)],
              [`${name}s`, values.length],
            ],
      ),
    )
  }

  /** One job after the other; in the first third also jobs that are cancelled, each of which makes the heart beat. */
  async ofEngine(seconds: number, check: () => void = () => {}): Promise<void> {
    const began = performance.now()
    const passed = () => (performance.now() - began) / (seconds * 1_000)
    while (passed() < 1) {
      await this.#job()
      if (passed() < 1 / 3) await this.#cancelled()
      check()
      await delay(PAUSE_MS)
    }
  }

  async #job(): Promise<void> {
    const { telemetry } = this.#engine
    let started = 0
    const end = telemetry.on('job:started', () => {
      started = performance.now()
    })
    const completed = telemetry.next('job:completed')
    const asked = performance.now()
    await this.#engine.enqueue(quick, null, { queue: 'quick' })
    await completed
    end()
    this.#ms.job.push(performance.now() - asked)
    this.#ms.ack.push(performance.now() - started)
  }

  async #cancelled(): Promise<void> {
    const { telemetry } = this.#engine
    const [started, cancelled] = [telemetry.next('job:started'), telemetry.next('job:cancelled')]
    const { id } = await this.#engine.enqueue(patient, null, { queue: 'patient' })
    await started
    const asked = performance.now()
    await this.#engine.cancel(id)
    await cancelled
    this.#ms.cancel.push(performance.now() - asked)
  }
}

/** Resolves when so many jobs, enqueued beforehand, are acked. */
async function burst(engine: Engine<pg.PoolClient>, jobs: number, began: () => void): Promise<void> {
  const { telemetry } = engine
  const paused = telemetry.next('queue:changed', (event) => event.paused)
  await engine.pauseQueue('burst')
  await paused
  await engine.enqueueMany(quick, Array(jobs).fill({ input: null, queue: 'burst' }))
  const acked = Promise.withResolvers<void>()
  let left = jobs
  const end = telemetry.on('job:completed', () => {
    left--
    if (left === 0) acked.resolve()
  })
  await engine.resumeQueue('burst')
  began()
  await acked.promise
  end()
}

async function bursts(
  engine: Engine<pg.PoolClient>,
  { bursts: count, jobs, disturbance }: IsolationOrder,
  checkouts: Checkouts,
  parent: Conversation,
): Promise<void> {
  for (let number = 0; number < count; number++) {
    const began = Promise.withResolvers<void>()
    const acked = burst(engine, jobs, began.resolve)
    await began.promise
    if (disturbance === 'acks') await checkouts.until(acked, transactionsOf(engine))
    else {
      parent.tell('burst')
      await acked
      parent.tell('burst-over')
      await parent.heard('next')
    }
  }
}

function transactionsOf(engine: Engine<pg.PoolClient>): (began: () => void) => Promise<unknown> {
  return (began) =>
    engine.transaction((tx) => {
      began()
      return tx.query('SELECT 1')
    })
}

/** A process that does both: the engine's work, and an application that checks out connections. */
await runSubject<IsolationOrder>(async (order, parent) => {
  const released = Promise.withResolvers<void>()
  const engine: Engine<pg.PoolClient> = createEngine<pg.PoolClient>({
    name: order.name,
    engine: { url: order.engine },
    // Longer than they are held: who waits for one here waits for the end.
    application: { url: order.application, acquireTimeout: '60s' },
    directUrl: order.directUrl,
    guard: { mode: 'off' }, // It would refuse what the greedy ones do.
    tasks: [
      quick,
      patient,
      defineTask({
        name: 'greedy',
        input,
        run: () =>
          engine.transaction(async (tx) => {
            await tx.query('SELECT 1')
            await released.promise
          }),
      }),
    ],
    queues: { quick: 2, patient: 1, greedy: GREEDY, burst: 100 },
  })
  const faults = alarmsOf(engine)
  const latencies = new Latencies(engine)
  await engine.start()
  await latencies.ofEngine(order.seconds / 8)
  const checkouts = new Checkouts()
  await checkouts.until(delay(order.seconds * 50), transactionsOf(engine))
  checkouts.forget()
  latencies.forget()
  parent.tell('ready')
  await parent.heard('go')

  if (order.disturbance === 'acks' || order.disturbance === 'acks-elsewhere') {
    await bursts(engine, order, checkouts, parent)
  } else {
    const exhausted = order.disturbance === 'application'
    if (exhausted) await exhaust(engine)
    await latencies.ofEngine(order.seconds, () => {
      const { inUse, size, waiting } = engine.connections().application
      if (exhausted && (inUse !== size || waiting === 0)) faults.push('the application had a connection left')
    })
    if (!exhausted) await checkouts.until(delay(order.seconds * 200), transactionsOf(engine))
  }
  const figures = { ...latencies.figures(), ...checkouts.figures() }
  parent.tell('found', { figures, faults } satisfies IsolationFound)
  await parent.heard('noted')
  released.resolve()
  await drained(engine)
  await engine.stop()
})
