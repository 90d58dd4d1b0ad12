import { detached } from './detached.ts'

/**
 * Natural batching: what comes while a write is under way gathers, and goes together in the next one. So a single item
 * is never delayed, and under load many share a statement and a commit.
 */
export class NaturalBatches<Item> {
  readonly #write: (batch: Item[]) => Promise<void>
  readonly #largest: number
  #waiting: Item[] = []
  #writing = false

  /**
   * @param write writes a batch and settles its items; it handles its own errors.
   * @param largest most items in a batch.
   */
  constructor(write: (batch: Item[]) => Promise<void>, largest: number) {
    this.#write = write
    this.#largest = largest
  }

  add(item: Item): void {
    this.#waiting.push(item)
    if (!this.#writing) void detached(() => this.#drain())
  }

  async #drain(): Promise<void> {
    this.#writing = true
    while (this.#waiting.length > 0) await this.#write(this.#waiting.splice(0, this.#largest))
    this.#writing = false
  }
}
