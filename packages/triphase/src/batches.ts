import { setImmediate as endOfTurn } from 'node:timers/promises'
import { detached } from './detached.ts'

/** How a batch is put together. */
export interface BatchLimits {
  /** Most items in a batch. */
  largest: number
  /**
   * A batch waits for the end of the event loop's turn, for items that are added one by one in it: what a batch that has
   * just been written sets free comes back together, and not as one item and then the others.
   */
  wholeTurns?: boolean
}

/**
 * Natural batching: what comes while a write is under way gathers, and goes together in the next one. So a single item
 * is never delayed, and under load many share a statement and a commit.
 */
export class NaturalBatches<Item> {
  readonly #write: (batch: Item[]) => Promise<void>
  readonly #limits: BatchLimits
  #waiting: Item[] = []
  #writing = false

  /**
   * @param write writes a batch and settles its items; it handles its own errors.
   * @param limits most items in a batch, or more than that.
   */
  constructor(write: (batch: Item[]) => Promise<void>, limits: number | BatchLimits) {
    this.#write = write
    this.#limits = typeof limits === 'number' ? { largest: limits } : limits
  }

  add(item: Item): void {
    this.#waiting.push(item)
    if (!this.#writing) void detached(() => this.#drain())
  }

  async #drain(): Promise<void> {
    const { largest, wholeTurns } = this.#limits
    this.#writing = true
    while (this.#waiting.length > 0) {
      if (wholeTurns) await endOfTurn()
      await this.#write(this.#waiting.splice(0, largest))
    }
    this.#writing = false
  }
}
