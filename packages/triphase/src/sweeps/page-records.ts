import type { RecordTries } from '../store/sweep-page.ts'
import { PageReader } from './page-reader.ts'
import type { PendingRecord } from './record-table.ts'

/** Most records that are read at a time. */
const LARGEST_READ = 1_000

interface RecordWaiting {
  record: PendingRecord
  /** Monotonic milliseconds. */
  dueAt: number
}

/** The records of a page in their turn: as they are read, and again when their next try is due. */
export class PageRecords {
  readonly #reader: PageReader
  readonly #tries: Map<string, RecordTries>
  readonly #calling = new Set<string>()
  readonly #retrying = new Set<string>()
  /** Calls that ended while records were read: what was read may still say that they are pending. */
  readonly #endedWhileReading = new Set<string>()
  #waiting: RecordWaiting[] = []

  /** @param tries of earlier claims of the page. */
  constructor(
    read: (after: string | null, limit: number) => Promise<PendingRecord[]>,
    fromKey: string | null,
    tries: Map<string, RecordTries>,
  ) {
    this.#reader = new PageReader(read, fromKey, LARGEST_READ)
    this.#tries = tries
  }

  get reading(): boolean {
    return this.#reader.reading
  }

  /** Nothing is waiting for its first call. */
  get drained(): boolean {
    return this.#reader.ended && this.#reader.size === 0
  }

  /** Records at hand that could be called; what is not read yet counts as many. */
  get waiting(): number {
    return this.#reader.ended ? this.#reader.size + this.#waiting.length : Number.POSITIVE_INFINITY
  }

  /** When the next try of a record is due; undefined: none waits. */
  get dueAt(): number | undefined {
    return this.#waiting[0]?.dueAt
  }

  needsReading(slots: number): boolean {
    return this.#reader.needs(slots)
  }

  async readOn(slots: number): Promise<void> {
    try {
      await this.#reader.readOn(slots, (record) => this.#isNew(record))
    } finally {
      this.#endedWhileReading.clear()
    }
  }

  /** The next record to be called. One whose next try is due goes first. */
  next(): PendingRecord | undefined {
    const [first] = this.#waiting
    let record: PendingRecord | undefined
    if (first && first.dueAt <= performance.now()) {
      this.#waiting.shift()
      this.#retrying.delete(first.record.key)
      record = first.record
    } else record = this.#reader.next()
    if (record) this.#calling.add(record.key)
    return record
  }

  /** A record that `next` gave is through, or waits for its next try. */
  ended({ key }: PendingRecord): void {
    this.#calling.delete(key)
    if (this.reading) this.#endedWhileReading.add(key)
  }

  triesOf({ key }: PendingRecord): { tries: number; crashes: number } {
    return this.#tries.get(key) ?? NONE
  }

  /** Whether it has been called before, and waited since. */
  wasTried({ key }: PendingRecord): boolean {
    return this.#tries.has(key)
  }

  /** So many tries have failed, and the next is due after some time. */
  tryLater(record: PendingRecord, tries: number, delayMs: number): void {
    this.#tries.set(record.key, { tries, crashes: this.triesOf(record).crashes, dueMs: 0 })
    this.#waitFor(record, delayMs)
  }

  /** Whether a record that was read is to be called in its turn: not one that is under way, or waits for its next try. */
  #isNew(record: PendingRecord): boolean {
    const { key } = record
    if (this.#calling.has(key) || this.#retrying.has(key) || this.#endedWhileReading.has(key)) return false
    const dueMs = this.#tries.get(key)?.dueMs ?? 0
    if (dueMs > 0) this.#waitFor(record, dueMs)
    return dueMs === 0
  }

  #waitFor(record: PendingRecord, delayMs: number): void {
    this.#retrying.add(record.key)
    this.#waiting.push({ record, dueAt: performance.now() + delayMs })
    this.#waiting.sort((a, b) => a.dueAt - b.dueAt)
  }
}

const NONE = Object.freeze({ tries: 0, crashes: 0 })
