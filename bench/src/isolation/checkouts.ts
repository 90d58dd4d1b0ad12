import { setTimeout as delay } from 'node:timers/promises'
import { quantile } from '../support/spread.ts'
import type { Figures } from '../support/subject.ts'

/** Short transactions of an application, one after the other, and how long each waited for its connection and took in all. */
export class Checkouts {
  readonly #waits: number[] = []
  readonly #durations: number[] = []

  /** @param transaction calls `began` once it has its connection, and runs one statement. */
  async until(ended: Promise<unknown>, transaction: (began: () => void) => Promise<unknown>): Promise<void> {
    let over = false
    const end = ended.finally(() => {
      over = true
    })
    while (!over) {
      const asked = performance.now()
      await transaction(() => this.#waits.push(performance.now() - asked))
      this.#durations.push(performance.now() - asked)
      await delay(1)
    }
    await end
  }

  /** What was measured so far was to warm up. */
  forget(): void {
    this.#waits.length = 0
    this.#durations.length = 0
  }

  figures(): Figures {
    if (this.#waits.length === 0) return {}
    return {
      checkoutP50: quantile(this.#waits, 0.5),
      checkoutP99: quantile(this.#waits, 0.99),
      checkoutMax: Math.max(...this.#waits),
      transactionP50: quantile(this.#durations, 0.5),
      transactionP99: quantile(this.#durations, 0.99),
      checkouts: this.#waits.length,
    }
  }
}
