import { EventEmitter } from 'node:events'
import { type StoredError, storedError } from './errors.ts'

/** What every event about a job says of it. */
export interface JobEvent {
  jobId: string
  task: string
  queue: string
  attempt: number
  claimNo: number
}

/** Checkouts of connections. Times are milliseconds. */
export interface CheckoutSums {
  /** Connections checked out. */
  checkouts: number
  /** Time spent waiting for them, in all. */
  waitMs: number
  /** Time they were held, in all. */
  holdMs: number
  longestHoldMs: number
}

/** Connection time in one phase, in milliseconds, on the application's pool. */
export interface PhaseLedger extends CheckoutSums {
  /** Wall-clock time of the phase. */
  durationMs: number
}

/** Connection time of one claim, in milliseconds, on the application's pool. */
export interface Ledger extends CheckoutSums {
  /** By name: `prepare`, `call`, `commit`. */
  phases: Record<string, PhaseLedger>
}

/** What the claims of one task did with connections of the application. Times are milliseconds. */
export interface TaskConnections extends PhaseConnections {
  task: string
  queue: string
  phases: Record<string, PhaseConnections>
}

/** The ledgers of several claims, of a task or of one phase of it. Times are milliseconds. */
export interface PhaseConnections extends PhaseLedger {
  /** Claims that have ended; of a phase, those that came to it. */
  claims: number
}

/** Every event that the engine emits, with what it carries. Times are milliseconds. */
export interface TelemetryEvents {
  /** Once a call and queue. In a transaction of the caller they exist only once that commits. */
  'job:enqueued': { jobIds: string[]; task: string; queue: string }
  /** `queuedMs`: since it was enqueued, delays and earlier attempts included. */
  'job:started': JobEvent & { queuedMs: number }
  'job:phase': JobEvent & { phase: string }
  'job:answer-stored': JobEvent & { step: string; bytes: number; first: boolean }
  'job:completed': JobEvent & { durationMs: number; ledger: Ledger; result: unknown }
  'job:retried': JobEvent & { delayMs: number; countsAsAttempt: boolean; error: StoredError }
  'job:snoozed': JobEvent & { delayMs: number }
  'job:handed-back': JobEvent
  'job:cancelled': JobEvent & { reason: string | null }
  'job:discarded': JobEvent & { error: StoredError }
  /** The claim was no longer this process's: what it did is not acknowledged, its stored answers are kept. */
  'job:lost': JobEvent
  /** The handler ignored its signal; it keeps its slot until it settles. */
  'job:leaked': JobEvent & { reason: string }
  'queue:claimed': { queue: string; count: number; durationMs: number }
  'queue:changed': { queue: string; paused: boolean; concurrency: number }
  'jobs:staged': { count: number }
  'jobs:rescued': { processId: string; again: string[]; discarded: string[] }
  'jobs:strays-returned': { jobIds: string[] }
  /** What the engine talks to. `transaction`: a pooler shares server connections between clients; `session`: it seems not to. */
  'server:found': { version: string; pooler: 'none' | 'session' | 'transaction' }
  'process:started': { processId: string; name: string }
  'process:stopping': { processId: string; running: number; graceMs: number }
  'process:stopped': { processId: string; handedBack: number }
  /** Others took this process for dead: its claims are gone, and it starts anew as another one. */
  'process:lost': { processId: string; aborted: number }
  'process:leading': { processId: string; leading: boolean }
  'heartbeat:failed': { error: StoredError; failures: number }
  'statement:failed': { statement: string; error: StoredError; retryInMs: number | null }
  'notifier:changed': { notifier: string; connected: boolean; error: StoredError | null }
  'history:pruned': { partitionsMade: number; partitionsDropped: number; postponed: number; orphans: number }
  'pool:error': { pool: string; error: StoredError }
  'pool:held': { pool: 'engine' | 'application'; waitMs: number; holdMs: number; jobId: string | null }
  /** A transaction did what keeps its connection from others. Told once for each place and kind. */
  'guard:offence': {
    kind: 'call' | 'checkout' | 'hold'
    /** Such as `GET api.example.com`. */
    what: string
    /** Where the transaction was opened. */
    opened: string
    /** All of it, with the remedy. */
    message: string
    /** The transaction was rolled back, and its caller got the same as an error. */
    refused: boolean
    /** Of a staged job. */
    jobId: string | null
  }
  'config:warning': { message: string }
}

type Listener<Name extends keyof TelemetryEvents> = (event: TelemetryEvents[Name]) => void

/**
 * What the engine reports. Written by every part, read by none of them. A listener that throws or rejects is
 * reported as a warning of the process and disturbs nothing else.
 *
 * @example
 * engine.telemetry.on('job:discarded', ({ task, error }) => alert(task, error.message))
 */
export class Telemetry {
  readonly #emitter = new EventEmitter().setMaxListeners(0)
  readonly #all = new Set<(name: keyof TelemetryEvents, event: object) => void>()

  /** Listens to one kind of event. Returns the function that ends it. */
  on<Name extends keyof TelemetryEvents>(name: Name, listener: Listener<Name>): () => void {
    this.#emitter.on(name, listener)
    return () => this.#emitter.off(name, listener)
  }

  /** Listens to every event. Returns the function that ends it. */
  onAny(listener: (name: keyof TelemetryEvents, event: object) => void): () => void {
    this.#all.add(listener)
    return () => this.#all.delete(listener)
  }

  /** The next event of a kind, or of a kind and fitting `matches`. */
  next<Name extends keyof TelemetryEvents>(
    name: Name,
    matches: (event: TelemetryEvents[Name]) => boolean = () => true,
  ): Promise<TelemetryEvents[Name]> {
    return new Promise((resolve) => {
      const end = this.on(name, (event) => {
        if (!matches(event)) return
        end()
        resolve(event)
      })
    })
  }

  /** @internal Whether anybody listens: events of which there are many are made only then. */
  hears(name: keyof TelemetryEvents): boolean {
    return this.#all.size > 0 || this.#emitter.listenerCount(name) > 0
  }

  /** @internal */
  emit<Name extends keyof TelemetryEvents>(name: Name, event: TelemetryEvents[Name]): void {
    for (const listener of this.#emitter.rawListeners(name)) call(listener as Listener<Name>, event)
    for (const listener of this.#all) call(() => listener(name, event), event)
  }
}

function call<Event>(listener: (event: Event) => unknown, event: Event): void {
  try {
    const returned = listener(event)
    if (returned instanceof Promise) returned.catch(warn)
  } catch (error) {
    warn(error)
  }
}

function warn(error: unknown): void {
  process.emitWarning(`a telemetry listener failed: ${storedError(error).message}`)
}
