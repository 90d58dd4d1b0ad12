/** What went wrong, as a stable string for programs. The message says it to people, with the remedy. */
export type ErrorCode =
  | 'ANSWER_TOO_LARGE'
  | 'CALL_IN_TRANSACTION'
  | 'CANCELLED'
  | 'CLAIM_LOST'
  | 'COMMIT_UNKNOWN'
  | 'CONNECTION_FAILED'
  | 'CRASHED_TOO_OFTEN'
  | 'ENGINE_NOT_RUNNING'
  | 'DISK_FULL'
  | 'FILE_CHANGED'
  | 'FILE_FAULTS'
  | 'FILE_LOADED'
  | 'FILE_LOADING'
  | 'FILE_UNREADABLE'
  | 'FILE_UNWRITABLE'
  | 'INVALID_CONFIG'
  | 'INVALID_DURATION'
  | 'INVALID_INPUT'
  | 'INVALID_ANSWER'
  | 'INVALID_OPTIONS'
  | 'LOGIN_REFUSED'
  | 'MIGRATION_LOCKED'
  | 'MIGRATION_NEEDED'
  | 'NO_APPLICATION_DATABASE'
  | 'NO_FILE'
  | 'NO_PERMISSION'
  | 'NO_SWEEP_RUN'
  | 'NOT_JSON'
  | 'NOTIFICATIONS_LOST'
  | 'RESULT_TOO_LARGE'
  | 'SCHEMA_TOO_NEW'
  | 'SECOND_CHECKOUT'
  | 'SERVER_TOO_OLD'
  | 'STATEMENT_TIMEOUT'
  | 'STOPPING'
  | 'SWEEP_OPEN'
  | 'SWEEP_TABLE'
  | 'TIMEOUT'
  | 'UNKNOWN_TASK'
  | 'WRITE_REFUSED'

/**
 * Every error that Triphase throws or aborts a signal with.
 *
 * @example
 * try { await engine.enqueue(task, input) } catch (error) {
 *   if (error instanceof TriphaseError && error.code === 'INVALID_INPUT') reply(400, error.message)
 * }
 */
export class TriphaseError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'TriphaseError'
    this.code = code
  }
}

/**
 * Throw it from a handler when trying again cannot help: the job is discarded at once, whatever attempts are left.
 *
 * @example
 * if (response.status === 400) throw new Permanent('the model refused the image', { cause: response })
 */
export class Permanent extends Error {
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'Permanent'
  }
}

const UNKNOWN_DELAY_MS = 30_000
const NO_DELAY_MS = 1_000

/**
 * Throw it from a handler when the other side said when to come back (429 with Retry-After): the job is retried
 * after that delay, and the attempt does not count towards `maxAttempts`.
 *
 * @example
 * if (response.status === 429) throw new RetryAfter(Number(response.headers.get('retry-after') ?? 30) * 1000)
 */
export class RetryAfter extends Error {
  /** Milliseconds to wait; 30,000 for what is no number, such as a header that is a date, and 1,000 for 0 or less. */
  readonly delayMs: number

  constructor(delayMs: number, message?: string, options?: { cause?: unknown }) {
    // At once would be a loop that no attempt ends, at the cost of whoever asked for a pause.
    const known = delayMs > 0 ? delayMs : NO_DELAY_MS
    const waitMs = Number.isNaN(delayMs) ? UNKNOWN_DELAY_MS : known
    super(message ?? `asked to come back in ${waitMs} ms`, options)
    this.name = 'RetryAfter'
    this.delayMs = waitMs
  }
}

/**
 * Throw it from a staged task's `commit` when the stored answer cannot be used (the model answered garbage): the
 * answer is dropped with this attempt, so that the next one calls again. Without it, a stored answer is kept and
 * the call is never repeated.
 *
 * @example
 * if (!parsed.success) throw new RejectedAnswer('the model did not answer with observations', { cause: parsed.error })
 */
export class RejectedAnswer extends Error {
  /** Names of the steps whose answers are dropped, with the whole answer that was made of them; all when not given. */
  readonly steps: readonly string[] | undefined

  constructor(message: string, options?: { cause?: unknown; steps?: readonly string[] }) {
    super(message, options)
    this.name = 'RejectedAnswer'
    this.steps = options?.steps
  }
}

/** An error as it is stored with a job: bounded in size, without the values that a message might carry along. */
export interface StoredError {
  name: string
  message: string
  code?: string
  stack?: string
  cause?: { name: string; message: string; code?: string }
}

const NAME_LIMIT = 200
const MESSAGE_LIMIT = 4_000
const STACK_LIMIT = 8_000

/** Describes whatever was thrown, in a form that fits into a row. Never throws, whatever libraries do to their errors. */
export function storedError(thrown: unknown): StoredError {
  const error = known(() => (thrown instanceof Error ? thrown : undefined))
  if (!error) return { name: 'NotAnError', message: textOf(() => thrown, MESSAGE_LIMIT) }
  const stack = known(() => error.stack)
  const cause = known(() => (error.cause instanceof Error ? error.cause : undefined))
  return {
    ...nameAndMessage(error),
    ...(stack ? { stack: textOf(() => stack, STACK_LIMIT) } : {}),
    ...(cause ? { cause: nameAndMessage(cause) } : {}),
  }
}

/** Why a job that somebody asked to be cancelled was, as it is stored with the job. */
export function cancelledOnRequest(): string {
  const { name, message, code } = storedError(new TriphaseError('CANCELLED', 'cancelled on request'))
  return JSON.stringify({ name, message, code })
}

function nameAndMessage(error: Error): { name: string; message: string; code?: string } {
  const code = known(() => ('code' in error ? error.code : undefined))
  return {
    name: textOf(() => error.name, NAME_LIMIT),
    message: textOf(() => error.message, MESSAGE_LIMIT),
    ...(typeof code === 'string' ? { code: code.slice(0, NAME_LIMIT) } : {}),
  }
}

/** What `read` returns; undefined where a getter throws. */
function known<Value>(read: () => Value): Value | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

function textOf(read: () => unknown, limit: number): string {
  return known(() => String(read()).slice(0, limit)) ?? 'what has no text'
}
