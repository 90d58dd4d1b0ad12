import { setTimeout as delay } from 'node:timers/promises'
import { storedError, TriphaseError } from '../errors.ts'
import { isConnectionFailure } from '../store/database.ts'
import { Gatherer } from './gatherer.ts'
import type { Mark, RecordTable, RunOnApplication } from './record-table.ts'

/** What became of a mark. `lost`: the record was not pending any more. `gone`: it was deleted. */
export type MarkOutcome = 'marked' | 'lost' | 'gone'

const FIRST_PAUSE_MS = 50
const LONGEST_PAUSE_MS = 2_000
/** After a pause of this length it is asked whether it is a lock at all. */
const SUSPICIOUS_PAUSE_MS = 400
/** Once may be by chance: a row that was changed in that very moment. */
const MOST_WITHOUT_EFFECT = 3

/** Tries a write again for as long as its failures may pass. */
type Persist = <Value>(work: () => Promise<Value>) => Promise<Value>

/** Writes the marks of one page, each as soon as the one before it is written, those that have gathered together. */
export class Marker {
  readonly #table: RecordTable
  readonly #application: RunOnApplication
  readonly #pageId: string | null
  readonly #signal: AbortSignal
  readonly #persist: Persist
  readonly #marks: Gatherer<Mark, MarkOutcome | 'locked'>

  /** @param signal once it has fired, a write that fails is not tried again. */
  constructor(
    table: RecordTable,
    application: RunOnApplication,
    pageId: string | null,
    signal: AbortSignal,
    persist: Persist,
  ) {
    this.#table = table
    this.#application = application
    this.#pageId = pageId
    this.#signal = signal
    this.#persist = persist
    this.#marks = new Gatherer((marks) => this.#write(marks))
  }

  /**
   * Resolves when the mark has committed, or turned out to be of no use.
   *
   * @throws {TriphaseError} `WRITE_REFUSED` when the table takes no mark of this record at all.
   */
  add(mark: Mark): Promise<MarkOutcome> {
    return this.#marks.add(mark).then((outcome) => (outcome === 'locked' ? this.#addAgain(mark) : outcome))
  }

  /** Somebody else has locked the row: other records' marks pass it meanwhile. */
  async #addAgain(mark: Mark): Promise<MarkOutcome> {
    let withoutEffect = 0
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)) {
      await delay(pauseMs, undefined, { signal: this.#signal })
      const outcome = await this.#marks.add(mark)
      if (outcome !== 'locked') return outcome
      if (pauseMs < SUSPICIOUS_PAUSE_MS) continue
      const now = await this.#markNow(mark)
      if (now === 'marked') return now
      withoutEffect = now === 'locked' ? 0 : withoutEffect + 1
      if (withoutEffect === MOST_WITHOUT_EFFECT) throw ignored(mark)
    }
  }

  /** Says whether it is a lock that keeps the record pending. */
  async #markNow(mark: Mark): Promise<'marked' | 'locked' | 'ignored'> {
    try {
      const [marked] = await this.#table.mark(this.#application, [mark], this.#pageId, { now: true })
      return marked ? 'marked' : 'ignored'
    } catch {
      // Whatever else it is, the next mark meets it too.
      return 'locked'
    }
  }

  async #write(marks: readonly Mark[]): Promise<(MarkOutcome | 'locked')[]> {
    try {
      const marked = await this.#persist(() => this.#table.mark(this.#application, marks, this.#pageId))
      const missed = marks.filter((_, index) => !marked[index]).map(({ key }) => key)
      if (missed.length === 0) return marks.map(() => 'marked')
      const seen = await this.#persist(() => this.#table.look(this.#application, missed))
      return marks.map(({ key }, index) => (marked[index] ? 'marked' : reasonFor(seen.get(key))))
    } catch (error) {
      if (this.#signal.aborted || mayPass(error)) throw error
      return this.#writeApart(marks, error)
    }
  }

  /** A batch that the database refuses is split until the culprit stands alone; it is marked without its result. */
  async #writeApart(marks: readonly Mark[], error: unknown): Promise<(MarkOutcome | 'locked')[]> {
    const [only] = marks
    if (marks.length > 1) {
      const middle = marks.length >> 1
      const first = await this.#write(marks.slice(0, middle))
      return [...first, ...(await this.#write(marks.slice(middle)))]
    }
    if (!only || only.error?.startsWith(REFUSED)) {
      throw new TriphaseError(
        'WRITE_REFUSED',
        `The table refuses to mark ${only?.key ?? 'a record'}: ${(error as Error).message}`,
        { cause: error },
      )
    }
    const reason = `${REFUSED}: ${storedError(error).message}`
    return this.#write([{ ...only, result: null, error: storable(reason) }])
  }
}

function ignored({ key }: Mark): TriphaseError {
  return new TriphaseError(
    'WRITE_REFUSED',
    `The table does not take the mark of ${key}: nobody has locked the row, and the UPDATE changes nothing. Let the application's role update it (row-level security), and let no trigger drop the change.`,
  )
}

const REFUSED = 'the database refused the result'

/** Whether the same statement may succeed later: connections, deadlocks, cancelled statements, a full disk. */
export function mayPass(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return isConnectionFailure(error) || /^(40|53|55P03|57)/.test(code)
}

/** Postgres' text has no place for \u0000. */
export function storable(text: string): string {
  return text.replaceAll('\u0000', '\\u0000').toWellFormed()
}

function reasonFor(pending: boolean | undefined): MarkOutcome | 'locked' {
  if (pending === undefined) return 'gone'
  return pending ? 'locked' : 'lost'
}
