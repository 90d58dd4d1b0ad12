interface Waiting<Item, Outcome> {
  item: Item
  resolve: (outcome: Outcome) => void
  reject: (error: unknown) => void
}

/**
 * Writes items in natural batches: while one write is under way the next items gather, and go together. A single item
 * is never delayed.
 */
export class Gatherer<Item, Outcome> {
  readonly #write: (items: readonly Item[]) => Promise<readonly Outcome[]>
  readonly #largest: number
  #waiting: Waiting<Item, Outcome>[] = []
  #writing = false

  /** @param write writes items and returns their outcomes, in order. */
  constructor(write: (items: readonly Item[]) => Promise<readonly Outcome[]>, largest = 250) {
    this.#write = write
    this.#largest = largest
  }

  add(item: Item): Promise<Outcome> {
    const written = new Promise<Outcome>((resolve, reject) => this.#waiting.push({ item, resolve, reject }))
    if (!this.#writing) void this.#drain()
    return written
  }

  async #drain(): Promise<void> {
    this.#writing = true
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, this.#largest)
      try {
        const outcomes = await this.#write(batch.map(({ item }) => item))
        for (const [index, { resolve }] of batch.entries()) resolve(outcomes[index] as Outcome)
      } catch (error) {
        for (const { reject } of batch) reject(error)
      }
    }
    this.#writing = false
  }
}
