import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
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

export interface CallOptions {
  /** Of the page. */
  signal: AbortSignal
  idempotencyKey: () => string
  attempt: number
  spend(amount: number): void
  /** The call ignored its signal; its slot is not free before it settles. */
  leaked(settled: Promise<CallOutcome>): void
}

/** How long a call may take after its signal fired before it is left to itself. */
const ABORT_GRACE_MS = 5_000

/** Checks a record and makes its call; never throws. */
export async function callRecord(
  settings: SweepSettings,
  record: PendingRecord,
  options: CallOptions,
): Promise<CallOutcome> {
  const { signal } = options
  const controller = new AbortController()
  const stop = () => controller.abort(signal.reason)
  const timer = setTimeout(() => controller.abort(timeout(settings)), settings.timeoutMs)
  signal.addEventListener('abort', stop)
  if (signal.aborted) stop()
  const call = attempt(settings, record, { ...options, signal: controller.signal })
  const outcome = await Promise.race([call, ignored(controller.signal)])
  clearTimeout(timer)
  signal.removeEventListener('abort', stop)
  if (outcome) return outcome
  options.leaked(call)
  return failedBy(controller.signal.reason)
}

async function attempt(
  settings: SweepSettings,
  { row }: PendingRecord,
  { signal, idempotencyKey, attempt: number, spend }: CallOptions,
): Promise<CallOutcome> {
  try {
    signal.throwIfAborted()
    const record = settings.schema
      ? await validated(settings.schema, row, 'INVALID_INPUT', 'The record')
      : row
    const value = await settings.each(record, {
      signal,
      get idempotencyKey() {
        return idempotencyKey()
      },
      attempt: number,
      spend,
    })
    return { kind: 'done', value, json: jsonText(value, 'The result') }
  } catch (thrown) {
    return signal.aborted ? failedBy(signal.reason) : outcomeOf(thrown)
  }
}

/** Resolves with undefined once a signal has been ignored for too long. */
function ignored(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    const wait = () => void delay(ABORT_GRACE_MS, undefined, { ref: false }).then(resolve)
    if (signal.aborted) wait()
    else signal.addEventListener('abort', wait, { once: true })
  })
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
