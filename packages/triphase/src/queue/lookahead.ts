const WINDOW_MS = 20
const AHEAD_MS = 50
const MOST = 450

/**
 * How many jobs a queue claims beyond its free slots: as many as were started in its last 50 ms. Where jobs are short,
 * one claim then serves hundreds of them and slots never wait for the database; where they take seconds it is a few
 * or none, and no process sits on work that another could do.
 *
 * Measured with no-op jobs, 2 cores: claiming just the free slots 3,000 jobs/s at concurrency 5 and 12,700 at 50; with
 * this 20,900 and 26,900.
 */
export class Lookahead {
  #started = 0
  #since: number
  #perMs = 0

  /** @param now monotonic time, in milliseconds. */
  constructor(now: number = performance.now()) {
    this.#since = now
  }

  /** A job was started. */
  count(): void {
    this.#started++
  }

  /** Jobs to claim beyond the free slots. */
  size(now: number = performance.now()): number {
    const elapsed = now - this.#since
    if (elapsed >= WINDOW_MS) {
      this.#perMs = this.#started / elapsed
      this.#started = 0
      this.#since = now
    }
    return Math.min(MOST, Math.floor(this.#perMs * AHEAD_MS))
  }
}
