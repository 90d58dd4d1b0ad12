// An engine in a process of its own, to be killed, stopped and told the wrong time. It prints each of its events as a
// line, `NAME {…}`, and `ready {…}` once it works.
import type pg from 'pg'
import { createEngine, defineStagedTask, defineTask, type Engine, unchecked } from '../../src/index.ts'
import { run } from '../../src/runner.ts'
import type { WorkerSettings } from './worker-processes.ts'

const settings = JSON.parse(process.env.TRIPHASE_WORKER ?? '{}') as WorkerSettings

function print(name: string, value: object): void {
  process.stdout.write(`${name} ${JSON.stringify(value)}\n`)
}

/** The process's clock, and nobody else's, is off by so much. */
function shiftClock(byMs: number): void {
  const RealDate = Date
  globalThis.Date = class extends RealDate {
    constructor(...args: [] | ConstructorParameters<DateConstructor>) {
      if (args.length === 0) super(RealDate.now() + byMs)
      else super(...(args as ConstructorParameters<DateConstructor>))
    }
    static override now(): number {
      return RealDate.now() + byMs
    }
  } as DateConstructor
}

/** Runs until its signal fires. */
const hold = defineTask({
  name: 'hold',
  input: unchecked<unknown>(),
  timeout: '10m',
  run: ({ signal, job }) =>
    new Promise((_resolve, reject) => {
      signal.addEventListener('abort', () => {
        print('aborted', { jobId: job.id, code: signal.reason.code })
        reject(signal.reason)
      })
    }),
})

/** Sleeps, whatever its signal says, and returns who it was. */
const nap = defineTask({
  name: 'nap',
  input: unchecked<{ ms: number }>(),
  run: async ({ input, signal, job }) => {
    signal.addEventListener('abort', () => print('aborted', { jobId: job.id, code: signal.reason.code }))
    const over = new Promise((resolve) => setTimeout(resolve, input.ms))
    print('napping', { jobId: job.id })
    await over
    print('napped', { jobId: job.id })
    return { pid: process.pid }
  },
})

const poison = defineTask({
  name: 'poison',
  input: unchecked<{ afterMs: number }>(),
  run: async ({ input }) => {
    await new Promise((resolve) => setTimeout(resolve, input.afterMs))
    process.kill(process.pid, 'SIGKILL')
  },
})

/** Pays for a call and keeps the answer even if its signal has fired meanwhile. */
const paid = defineStagedTask({
  name: 'paid',
  input: unchecked<{ key: string }>(),
  prepare: async () => ({}),
  call: async ({ input, signal, job }) => {
    signal.addEventListener('abort', () => print('aborted', { jobId: job.id, code: signal.reason.code }))
    const body = JSON.stringify({ key: input.key })
    const response = await fetch(`${settings.apiUrl}/call`, { method: 'POST', body })
    return { ...((await response.json()) as object), pid: process.pid }
  },
  commit: async ({ answer }) => ({ answer, committedBy: process.pid }),
})

/** Waits for the database, in a transaction, whatever its signal says. */
const stuck = defineStagedTask({
  name: 'stuck',
  input: unchecked<{ seconds: number }>(),
  prepare: async ({ tx, input, job }) => {
    print('napping', { jobId: job.id })
    await tx.query('SELECT pg_sleep($1), $2::text AS stuck', [input.seconds, job.id])
  },
  call: async () => null,
  commit: async () => {},
})

function engineOf({ url, schema, options }: WorkerSettings): Engine<pg.PoolClient> {
  const tasks = [hold, nap, poison, paid, stuck]
  const pools = { engine: { size: 3 }, application: { size: 2 } }
  const engine = createEngine({ url, schema, ...pools, abortGrace: '500ms', tasks, ...options })
  engine.telemetry.onAny((name, event) => {
    if (name !== 'pool:held') print(name, event)
  })
  return engine
}

async function main(): Promise<void> {
  if (settings.clockShiftMs) shiftClock(settings.clockShiftMs)
  const engine = engineOf(settings)
  if (settings.migrate) print('migrated', await engine.migrate())
  if (settings.mode === 'migrate') return engine.stop()
  const started = engine.telemetry.next('process:started')
  const running =
    settings.mode === 'runner'
      ? run(engine, { onSignal: (signal) => print('signal', { signal }) })
      : engine.start()
  const { processId } = await started
  print('ready', { processId, pid: process.pid })
  const signal = await running
  if (settings.mode === 'runner') print('stopped', { signal })
}

await main()
