import { setTimeout as delay } from 'node:timers/promises'
import { detached } from '../detached.ts'
import { storedError } from '../errors.ts'
import type { Hint, Notifier } from '../notifier.ts'
import type { Database } from '../store/database.ts'
import type { Telemetry } from '../telemetry.ts'

const PAUSE_MS = 10

/**
 * Sends hints after the commits that they tell of: the first at once, and those that come in the next moments together,
 * so that a thousand enqueues cost a few notifications. No enqueue waits for one: a transaction that notifies holds a lock
 * until it has committed that every other notifying transaction of the server waits for.
 *
 * Jobs/s and database CPU in µs/job of single inserts, one at a time and 16 at once: this way 7,553 and 11,712, 81 and
 * 78; a NOTIFY after each commit 5,268 and 7,927, 124 and 125; in the transaction of each 6,384 and 6,045, 109 and 145;
 * none at all 8,438 and 9,995, 75 and 101 (`bench/src/statements.ts`).
 */
export class HintOutbox {
  readonly #database: Database
  readonly #notifier: Notifier
  readonly #telemetry: Telemetry
  #waiting = new Map<string, Hint>()
  #sending: Promise<void> | undefined

  constructor(database: Database, notifier: Notifier, telemetry: Telemetry) {
    this.#database = database
    this.#notifier = notifier
    this.#telemetry = telemetry
  }

  add(hints: readonly Hint[]): void {
    for (const hint of hints) this.#waiting.set(keyOf(hint), hint)
    if (this.#waiting.size > 0) this.#sending ??= detached(() => this.#send())
  }

  /** Resolves when everything that was added is sent, or given up. */
  async flushed(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending
  }

  async #send(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#waiting.size > 0) {
      const hints = [...this.#waiting.values()]
      this.#waiting = new Map()
      try {
        await this.#notifier.publish(this.#database, hints)
      } catch (error) {
        // A hint that is lost costs a poll; the truth is in the tables.
        const event = { statement: 'notify', error: storedError(error), retryInMs: null }
        this.#telemetry.emit('statement:failed', event)
      }
      await delay(PAUSE_MS)
    }
    this.#sending = undefined
  }
}

/** Of several scheduled jobs the earliest is news; anything else is news once. */
function keyOf(hint: Hint): string {
  return hint.kind === 'scheduled' ? `scheduled ${Math.ceil(hint.inMs / 100)}` : JSON.stringify(hint)
}
