import type { PendingRecord } from './record-table.ts'

const SMALLEST_READ = 50
/** A portion that lasts no longer than this is followed by a larger one. */
const QUICK_MS = 500
/** Records that have been at hand for longer are read again before they are called. */
const FRESH_MS = 15_000

/** The pending records of a page in their order, read in portions as they are used up. */
export class PageReader {
  readonly #read: (after: string | null, limit: number) => Promise<PendingRecord[]>
  readonly #largest: number
  #atHand: PendingRecord[] = []
  #cursor: string | null
  /** Where the records at hand begin. */
  #lastTaken: string | null
  #readAt = Number.NEGATIVE_INFINITY
  #portion = SMALLEST_READ
  #quick = false
  #ended = false
  #reading = false

  /** @param read reads pending records after a place. */
  constructor(
    read: (after: string | null, limit: number) => Promise<PendingRecord[]>,
    fromKey: string | null,
    largest: number,
  ) {
    this.#read = read
    this.#cursor = fromKey
    this.#lastTaken = fromKey
    this.#largest = largest
  }

  get size(): number {
    return this.#atHand.length
  }

  get reading(): boolean {
    return this.#reading
  }

  /** The end of the page was read. */
  get ended(): boolean {
    return this.#ended
  }

  /** Whether there is something to read before `slots` more records can be taken. */
  needs(slots: number): boolean {
    // Where calls are quick, the next portion is on its way before this one is used up.
    const fewest = this.#quick ? Math.max(slots, this.#portion >> 1) : slots
    return !this.#ended && !this.#reading && this.#atHand.length < fewest
  }

  /** Reads the next portion. @param keep which of what was read is to be taken in its turn. */
  async readOn(slots: number, keep: (record: PendingRecord) => boolean): Promise<void> {
    // Twice as much as last time, where that was used up at once: few statements for quick calls, fresh rows for slow ones.
    this.#quick = performance.now() - this.#readAt < QUICK_MS
    const portion = this.#quick ? 2 * this.#portion : Math.max(SMALLEST_READ, 4 * slots)
    this.#portion = Math.min(this.#largest, portion)
    this.#reading = true
    try {
      const records = await this.#read(this.#cursor, this.#portion)
      this.#ended = records.length < this.#portion
      this.#readAt = performance.now()
      this.#cursor = records.at(-1)?.place ?? this.#cursor
      this.#atHand.push(...records.filter(keep))
    } finally {
      this.#reading = false
    }
  }

  /** What was read long ago may have been changed, marked or deleted by others: it is read again. */
  next(): PendingRecord | undefined {
    if (this.#atHand.length > 0 && !this.#reading && performance.now() - this.#readAt > FRESH_MS) {
      this.#atHand = []
      this.#cursor = this.#lastTaken
      this.#ended = false
    }
    const record = this.#atHand.shift()
    if (record) this.#lastTaken = record.place
    return record
  }
}
