import { createHash } from 'node:crypto'
import { LONGEST_DELAY_MS } from '../duration.ts'
import { Permanent, RetryAfter, storedError, TriphaseError } from '../errors.ts'
import { jsonText, validated } from '../task.ts'
import type { PendingRecord } from './record-table.ts'
import type { SweepSettings } from './sweep.ts'

/** What became of a call. `aborted`: nothing is known, since the page was told to stop. */
export type CallOutcome =
  | { kind: 'done'; value: unknown; json: string }
  | { kind: 'failed'; reason: string; permanent: boolean }
  | { kind: 'later'; delayMs: number; reason: string }
  | { kind: 'aborted' }

/** What a page does for its calls. */
export interface CallSurroundings {
  idempotencyKey(record: PendingRecord): string
  spend(record: PendingRecord, amount: number): void
  /** The call ignored its signal; its slot is not free before it settles. */
  leaked(record: PendingRecord, settled: Promise<CallOutcome>): void
}

/** How long a call may take after its signal fired before it is left to itself. */
const ABORT_GRACE_MS = 5_000

/** Checks records and makes their calls, until a signal fires. */
export class RecordCalls {
  readonly #settings: SweepSettings
  readonly #signal: AbortSignal
  readonly #surroundings: CallSurroundings
  readonly #open = new Set<OpenCall>()
  readonly #stop = () => {
    for (const call of this.#open) call.abort(this.#signal.reason)
  }

  /** @param signal of the page, heard once for all calls. */
  constructor(settings: SweepSettings, signal: AbortSignal, surroundings: CallSurroundings) {
    this.#settings = settings
    this.#signal = signal
    this.#surroundings = surroundings
    signal.addEventListener('abort', this.#stop)
  }

  /** No call is open any more, nor will be. */
  end(): void {
    this.#signal.removeEventListener('abort', this.#stop)
  }

  /** Never throws. */
  async make(record: PendingRecord, attempt: number): Promise<CallOutcome> {
    const call = new OpenCall()
    this.#open.add(call)
    const timer = setTimeout(() => call.abort(timeout(this.#settings)), this.#settings.timeoutMs)
    if (this.#signal.aborted) call.abort(this.#signal.reason)
    const settled = this.#attempt(record, call, attempt)
    const outcome = await call.orIgnored(settled)
    clearTimeout(timer)
    this.#open.delete(call)
    if (outcome) return outcome
    this.#surroundings.leaked(record, settled)
    return failedBy(call.reason)
  }

  async #attempt(record: PendingRecord, call: OpenCall, attempt: number): Promise<CallOutcome> {
    const { schema, each } = this.#settings
    const surroundings = this.#surroundings
    try {
      if (call.aborted) throw call.reason
      const row = schema ? await validated(schema, record.row, 'INVALID_INPUT', 'The record') : record.row
      const value = await each(row, {
        get signal() {
          return call.signal
        },
        get idempotencyKey() {
          return surroundings.idempotencyKey(record)
        },
        attempt,
        spend: (amount) => surroundings.spend(record, amount),
      })
      return { kind: 'done', value, json: jsonText(value, 'The result') }
    } catch (thrown) {
      return call.aborted ? failedBy(call.reason) : outcomeOf(thrown)
    }
  }
}

/** A call that is under way. Its signal is made when somebody asks for it: many calls are over before anybody has. */
class OpenCall {
  #controller: AbortController | undefined
  #ignored: (() => void) | undefined
  aborted = false
  reason: unknown

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.aborted) this.#controller.abort(this.reason)
    }
    return this.#controller.signal
  }

  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    this.#controller?.abort(reason)
    setTimeout(() => this.#ignored?.(), ABORT_GRACE_MS).unref()
  }

  /** What the call comes to; undefined once it has ignored its signal for too long. */
  orIgnored(settled: Promise<CallOutcome>): Promise<CallOutcome | undefined> {
    return new Promise((resolve) => {
      this.#ignored = () => resolve(undefined)
      void settled.then(resolve)
    })
  }
}

function outcomeOf(thrown: unknown): CallOutcome {
  const reason = reasonOf(thrown)
  if (thrown instanceof RetryAfter) {
    return { kind: 'later', delayMs: Math.min(thrown.delayMs, LONGEST_DELAY_MS), reason }
  }
  const refused = thrown instanceof TriphaseError && ['INVALID_INPUT', 'NOT_JSON'].includes(thrown.code)
  return { kind: 'failed', reason, permanent: refused || thrown instanceof Permanent }
}

/** A call that was too slow failed; one that had to stop for the page's sake did not. */
function failedBy(reason: unknown): CallOutcome {
  const late = reason instanceof TriphaseError && reason.code === 'TIMEOUT'
  return late ? { kind: 'failed', reason: reason.message, permanent: false } : { kind: 'aborted' }
}

function timeout({ name, timeoutMs }: SweepSettings): TriphaseError {
  return new TriphaseError('TIMEOUT', `A call of sweep ${name} took longer than ${timeoutMs} ms.`)
}

const REASON_LIMIT = 2_000

/** The error's message, and its cause's, where there is one. */
function reasonOf(thrown: unknown): string {
  const { name, message, cause } = storedError(thrown)
  const own = message === '' ? name : message
  return (cause ? `${own} (${cause.message})` : own).slice(0, REASON_LIMIT)
}

/** The same for every call of a run for a record; short, whatever the record's key is. */
export function idempotencyKeyOf(schema: string, run: { id: string; createdAt: Date }, key: string): string {
  const record = createHash('sha256').update(key).digest('hex').slice(0, 32)
  return `${schema}-sweep-${run.id}-${run.createdAt.getTime().toString(36)}-${record}`
}
