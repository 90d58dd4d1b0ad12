import { storedError } from '../errors.ts'
import { Loop } from '../loop.ts'
import type { Database } from '../store/database.ts'
import { nextDueMs, stageDueJobs } from '../store/stage.ts'
import type { Telemetry } from '../telemetry.ts'

const LARGEST_STAGE = 1_000
const RETRY_MS = 1_000
/** A job that is due and could not be staged is locked by somebody: a stager of another process, or a long transaction. */
const LOCKED_MS = 50
/** Waiting for news: the heartbeat says when the next job is due. */
const IDLE_MS = 2_147_483_647

/**
 * Makes scheduled and retryable jobs available when they are due. Every process stages (SKIP LOCKED keeps them
 * apart); each sleeps until the earliest time that it knows of: its own jobs, hints, and what the heartbeat says.
 */
export class Stager {
  readonly #database: Database
  readonly #telemetry: Telemetry
  readonly #onStaged: (queues: string[]) => void
  readonly #loop: Loop
  #nextDue = Number.POSITIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #started = false

  constructor(database: Database, telemetry: Telemetry, onStaged: (queues: string[]) => void) {
    this.#database = database
    this.#telemetry = telemetry
    this.#onStaged = onStaged
    this.#loop = new Loop(() => this.#pass())
  }

  start(): void {
    this.#started = true
    this.#loop.start()
  }

  async stop(): Promise<void> {
    this.#started = false
    clearTimeout(this.#timer)
    await this.#loop.stop()
  }

  /** A job is due in so many milliseconds (0 or less: now). */
  dueIn(ms: number): void {
    // A pass that is still running when stop is called says so too: its timer would keep the process alive for hours.
    if (!this.#started) return
    const at = performance.now() + Math.max(0, ms)
    if (at >= this.#nextDue) return
    this.#nextDue = at
    clearTimeout(this.#timer)
    // A little late rather than early: the database's clock decides, and an early look finds nothing.
    this.#timer = setTimeout(() => this.#loop.wake(), Math.min(Math.max(0, ms) + 2, IDLE_MS))
  }

  /** One round; returns how many jobs were staged. */
  async runOnce(now?: Date): Promise<number> {
    const staged = await stageDueJobs(this.#database, LARGEST_STAGE, now)
    const count = staged.reduce((sum, queue) => sum + queue.count, 0)
    if (count > 0) {
      this.#telemetry.emit('jobs:staged', { count })
      this.#onStaged(staged.map(({ queue }) => queue))
    }
    return count
  }

  async #pass(): Promise<number> {
    this.#nextDue = Number.POSITIVE_INFINITY
    try {
      const staged = await this.runOnce()
      if (staged >= LARGEST_STAGE) return 0
      const next = await nextDueMs(this.#database)
      if (next !== null) this.dueIn(staged === 0 && next <= 0 ? LOCKED_MS : next)
      return IDLE_MS
    } catch (error) {
      this.#telemetry.emit('statement:failed', {
        statement: 'stage',
        error: storedError(error),
        retryInMs: RETRY_MS,
      })
      return RETRY_MS
    }
  }
}
