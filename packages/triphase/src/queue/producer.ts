import type { ClaimedJob } from '../job.ts'

/** What a producer needs of its surroundings. */
export interface ProducerParts {
  queue: string
  concurrency: number
  /** Claims up to so many jobs; rejects when it cannot. */
  claim: (limit: number) => Promise<ClaimedJob[]>
  /** Runs a job; resolves when its slot is free again. */
  run: (job: ClaimedJob) => Promise<void>
  /** Resolves when outcomes are written fast enough for more jobs to begin. */
  ready: () => Promise<void>
  onClaimFailed: (error: unknown, retryInMs: number) => void
}

const LARGEST_CLAIM = 500
const RETRY_MS = [100, 250, 500, 1_000, 2_000]

/**
 * Keeps one queue's slots filled: as long as there may be work and a slot is free it claims as many jobs as there are
 * free slots, in one statement. A claim that comes back short says that the queue is empty; then it waits for a hint,
 * the heartbeat or a rescheduled job of its own. It never polls.
 */
export class Producer {
  readonly queue: string
  readonly #parts: ProducerParts
  #concurrency: number
  #paused = false
  #stopped = true
  #running = 0
  #mayHaveWork = false
  #claiming: Promise<void> | undefined
  #failures = 0
  #retry: NodeJS.Timeout | undefined

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

  /** Takes over what an operator set; null leaves the configured concurrency. Returns whether anything changed. */
  apply(settings: { paused: boolean; concurrency: number | null }): boolean {
    const concurrency = settings.concurrency ?? this.#parts.concurrency
    if (settings.paused === this.#paused && concurrency === this.#concurrency) return false
    this.#paused = settings.paused
    this.#concurrency = concurrency
    this.wake()
    return true
  }

  /** Claims nothing more; resolves when no claim is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    await this.#claiming
  }

  #claim(): void {
    if (this.#claiming || this.#stopped || this.#paused || !this.#mayHaveWork) return
    if (this.#running >= this.#concurrency) return
    this.#claiming = this.#claimOnce().finally(() => {
      this.#claiming = undefined
      this.#claim()
    })
  }

  async #claimOnce(): Promise<void> {
    await this.#parts.ready()
    // Slots that become free in the same turn of the event loop are filled by one claim.
    await new Promise((resolve) => setImmediate(resolve))
    const limit = Math.min(this.#concurrency - this.#running, LARGEST_CLAIM)
    if (limit <= 0 || this.#stopped || this.#paused) return
    this.#mayHaveWork = false
    try {
      const jobs = await this.#parts.claim(limit)
      this.#failures = 0
      if (jobs.length >= limit) this.#mayHaveWork = true
      for (const job of jobs) this.#run(job)
    } catch (error) {
      this.#claimFailed(error)
    }
  }

  #run(job: ClaimedJob): void {
    this.#running++
    void this.#parts.run(job).finally(() => {
      this.#running--
      this.#claim()
    })
  }

  #claimFailed(error: unknown): void {
    const pause = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] as number
    this.#failures++
    this.#parts.onClaimFailed(error, pause)
    this.#retry = setTimeout(() => this.wake(), pause)
  }
}
