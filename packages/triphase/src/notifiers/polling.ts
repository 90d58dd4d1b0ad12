import { LONGEST_TIMER_MS } from '../duration.ts'
import { storedError, TriphaseError } from '../errors.ts'
import type { Notifier, NotifierContext } from '../notifier.ts'
import { queuesWithWork } from '../store/heartbeat.ts'

/** @see pollingNotifier */
export interface PollingOptions {
  /** Pause between two questions while there is work, in milliseconds. Default 50. */
  minMs?: number
  /** Longest pause, in milliseconds. Default 5000. */
  maxMs?: number
}

/**
 * No notifications at all: one cheap question for all queues, often while there is work and more and more rarely when
 * there is none. For databases behind a transaction-mode pooler without a direct connection.
 *
 * The pause is a twentieth of the time since work was last seen, within `minMs` and `maxMs`. Once it is as long as that
 * between two heartbeats no question is asked any more: each heartbeat asks for all queues. With the defaults that is at
 * most 1,200 questions a minute while jobs come, and none after 80 s without any.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`: questions without a pause between them would never end.
 * @example
 * createEngine({ url: process.env.PGBOUNCER_URL, notifier: pollingNotifier(), queues: { default: 10 } })
 */
export function pollingNotifier(options: PollingOptions = {}): Notifier {
  for (const [name, ms] of Object.entries(options)) {
    if (ms !== undefined && !(Number.isFinite(ms) && ms >= 1 && ms <= LONGEST_TIMER_MS))
      throw new TriphaseError('INVALID_OPTIONS', `${name}: milliseconds, at least 1 and at most 24 days`)
  }
  let poller: Poller | undefined
  return {
    name: 'polling',
    async start(context) {
      poller?.stop()
      poller = new Poller(context, options)
      poller.start()
    },
    async publish(_database, hints) {
      // Own hints are worth following at once; other processes find the work by asking.
      for (const hint of hints) poller?.context.receive(hint)
      if (hints.length > 0) poller?.quicken()
    },
    observe(foundWork) {
      if (foundWork) poller?.quicken()
    },
    async stop() {
      poller?.stop()
      poller = undefined
    },
  }
}

const DEFAULTS = { minMs: 50, maxMs: 5_000 }
/** Pauses that go into the time since work was last seen. */
const PAUSES = 20
const FAILED_MS = 100

/** Asks for work, at a pace that follows how long there has been none. */
export class Poller {
  readonly context: NotifierContext
  readonly #minMs: number
  readonly #maxMs: number
  #timer: NodeJS.Timeout | undefined
  #running = false
  #asking = false
  #workSeen = 0
  #pause = 0
  #failures = 0

  constructor(context: NotifierContext, options: PollingOptions = {}) {
    this.context = context
    this.#minMs = options.minMs ?? DEFAULTS.minMs
    this.#maxMs = options.maxMs ?? DEFAULTS.maxMs
  }

  start(): void {
    if (this.#running) return
    this.#running = true
    this.#workSeen = performance.now()
    this.#schedule()
  }

  stop(): void {
    this.#running = false
    clearTimeout(this.#timer)
  }

  /** There is work: asks quickly from now on. */
  quicken(): void {
    this.#workSeen = performance.now()
    if (this.#running && !this.#asking && this.#pause > this.#minMs) this.#schedule()
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    const idleMs = performance.now() - this.#workSeen
    const least = this.#failures === 0 ? this.#minMs : FAILED_MS * 2 ** this.#failures
    this.#pause = Math.min(this.#maxMs, Math.max(least, idleMs / PAUSES))
    if (this.#pause >= this.context.heartbeatMs && this.#failures === 0) return
    this.#timer = setTimeout(() => void this.#poll(), this.#pause)
  }

  async #poll(): Promise<void> {
    this.#asking = true
    try {
      const queues = await queuesWithWork(this.context.database, this.context.queues)
      this.#failures = 0
      if (queues.length > 0) this.#workSeen = performance.now()
      for (const queue of this.#running ? queues : []) this.context.receive({ kind: 'available', queue })
    } catch (error) {
      this.#failures++
      this.#report(error)
    }
    this.#asking = false
    if (this.#running) this.#schedule()
  }

  #report(error: unknown): void {
    const retryInMs = Math.min(this.#maxMs, FAILED_MS * 2 ** this.#failures)
    if (!this.#running) return
    this.context.telemetry.emit('statement:failed', {
      statement: 'poll',
      error: storedError(error),
      retryInMs,
    })
  }
}
