import type { RunningClaim } from './claims.ts'
import { Lookahead } from './lookahead.ts'

/** What a producer needs of its surroundings. */
export interface ProducerParts {
  queue: string
  concurrency: number
  /** Claims up to so many jobs; rejects when it cannot. */
  claim: (limit: number) => Promise<RunningClaim[]>
  /** Runs a claim; resolves when its slot is free again. */
  run: (claim: RunningClaim) => Promise<void>
  /** Returns claims that were never started to their queue. */
  handBack: (claims: readonly RunningClaim[]) => void
  /** Resolves when outcomes are written fast enough for more jobs to begin. */
  ready: () => Promise<void>
  onClaimFailed: (error: unknown, retryInMs: number) => void
}

const LARGEST_CLAIM = 500
/** Jobs that were claimed ahead go back when no slot has become free for so long: another process may have one. */
const LONGEST_WAIT_MS = 1_000
const RETRY_MS = [100, 250, 500, 1_000, 2_000]

/**
 * Keeps one queue's slots filled: as long as there may be work and few claimed jobs are waiting, it claims as many as
 * there are free slots, and a little ahead, in one statement. A claim that comes back short says that the queue is
 * empty; then it waits for a hint, the heartbeat or a rescheduled job of its own. It never polls.
 */
export class Producer {
  readonly queue: string
  readonly #parts: ProducerParts
  readonly #lookahead = new Lookahead()
  #concurrency: number
  #paused = false
  #stopped = true
  #running = 0
  /** Claimed and not started, first in line last. */
  #waiting: RunningClaim[] = []
  #mayHaveWork = false
  #claiming: Promise<void> | undefined
  /** The claim that is under way, or the last one. */
  #claimed: Promise<void> | undefined
  #failures = 0
  #retry: NodeJS.Timeout | undefined
  #stall: NodeJS.Timeout | undefined
  #lastStartAt = 0

  constructor(parts: ProducerParts) {
    this.queue = parts.queue
    this.#parts = parts
    this.#concurrency = parts.concurrency
  }

  get settings(): { paused: boolean; concurrency: number } {
    return { paused: this.#paused, concurrency: this.#concurrency }
  }

  start(): void {
    this.#stopped = false
    this.wake()
  }

  /** There may be work. */
  wake(): void {
    this.#mayHaveWork = true
    this.#claim()
  }

  /** There may be work, and whatever kept a claim from being made may be over. */
  resync(): void {
    clearTimeout(this.#retry)
    this.#retry = undefined
    this.#failures = 0
    this.wake()
  }

  /** Takes over what an operator set; null leaves the configured concurrency. Returns whether anything changed. */
  apply(settings: { paused: boolean; concurrency: number | null }): boolean {
    const concurrency = settings.concurrency ?? this.#parts.concurrency
    if (settings.paused === this.#paused && concurrency === this.#concurrency) return false
    this.#paused = settings.paused
    this.#concurrency = concurrency
    if (this.#isClosed) this.#handBackWaiting()
    this.#fill()
    this.wake()
    return true
  }

  /** Claims and starts nothing more; resolves when no claim is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    this.#retry = undefined
    clearTimeout(this.#stall)
    this.#handBackWaiting()
    // Not for #claiming: while the database is away it may wait for outcomes to be written.
    await this.#claimed
  }

  /** Nothing is to be claimed or started. */
  get #isClosed(): boolean {
    return this.#stopped || this.#paused || this.#concurrency === 0
  }

  /** Not in the pause after a claim that failed: whoever tells of work (a poll, an enqueuer) may do so a thousand times a second. */
  #claim(): void {
    if (this.#claiming || this.#retry || this.#isClosed || !this.#mayHaveWork) return
    // What is claimed ahead is filled up when half of it is used: a claim for each job that starts would be dear.
    const enough = this.#concurrency + this.#lookahead.size(this.#concurrency) / 2
    if (this.#running + this.#waiting.length >= enough) return
    this.#claiming = this.#claimOnce().finally(() => {
      this.#claiming = undefined
      this.#claim()
    })
  }

  async #claimOnce(): Promise<void> {
    await this.#parts.ready()
    // Slots that become free in the same turn of the event loop are filled by one claim.
    await new Promise((resolve) => setImmediate(resolve))
    const wanted = this.#concurrency + this.#lookahead.size(this.#concurrency)
    const limit = Math.min(wanted - this.#running - this.#waiting.length, LARGEST_CLAIM)
    if (limit <= 0 || this.#isClosed) return
    this.#claimed = this.#claimUpTo(limit)
    await this.#claimed
  }

  async #claimUpTo(limit: number): Promise<void> {
    this.#mayHaveWork = false
    try {
      const claims = await this.#parts.claim(limit)
      this.#failures = 0
      if (claims.length >= limit) this.#mayHaveWork = true
      this.#waiting = [...claims.reverse(), ...this.#waiting]
      if (this.#isClosed) this.#handBackWaiting()
      this.#fill()
    } catch (error) {
      this.#claimFailed(error)
    }
  }

  #fill(): void {
    while (this.#running < this.#concurrency) {
      const claim = this.#waiting.pop()
      if (!claim) return
      this.#run(claim)
    }
    if (this.#waiting.length > 0) this.#stall ??= setTimeout(() => this.#checkStall(), LONGEST_WAIT_MS)
  }

  #checkStall(): void {
    this.#stall = undefined
    if (this.#waiting.length === 0) return
    const stalledMs = performance.now() - this.#lastStartAt
    if (stalledMs < LONGEST_WAIT_MS) {
      this.#stall = setTimeout(() => this.#checkStall(), LONGEST_WAIT_MS - stalledMs)
      return
    }
    this.#lookahead.stalled(stalledMs)
    this.#handBackWaiting()
  }

  #run(claim: RunningClaim): void {
    this.#running++
    const began = performance.now()
    this.#lastStartAt = began
    void this.#parts.run(claim).finally(() => {
      this.#lookahead.count(performance.now() - began)
      this.#running--
      this.#fill()
      this.#claim()
    })
  }

  #handBackWaiting(): void {
    const waiting = this.#waiting.reverse()
    this.#waiting = []
    if (waiting.length > 0) this.#parts.handBack(waiting)
  }

  #claimFailed(error: unknown): void {
    const pause = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] as number
    this.#failures++
    this.#parts.onClaimFailed(error, pause)
    this.#retry = setTimeout(() => {
      this.#retry = undefined
      this.wake()
    }, pause)
  }
}
