import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Backoff } from './backoff.ts'
import { type Duration, LONGEST_TIMER_MS, milliseconds } from './duration.ts'
import { TriphaseError } from './errors.ts'
import type { ClaimedJob, Priority } from './job.ts'

/** How an attempt ended, where a handler wants to say more than a result. See the functions below. */
export class Outcome {
  readonly kind: 'complete' | 'snooze' | 'cancel' | 'discard' | 'acknowledged'
  readonly result: unknown
  readonly delayMs: number
  readonly reason: string | undefined

  constructor(
    kind: Outcome['kind'],
    details: { result?: unknown; delayMs?: number; reason?: string | undefined } = {},
  ) {
    this.kind = kind
    this.result = details.result
    this.delayMs = details.delayMs ?? 0
    this.reason = details.reason
  }
}

/** The job is done; `result` is kept with it. Returning any other value from a handler means the same. */
export function complete(result?: unknown): Outcome {
  return new Outcome('complete', { result })
}

/** Run the job again after `delay`. The attempt does not count towards `maxAttempts`. */
export function snooze(delay: Duration): Outcome {
  return new Outcome('snooze', { delayMs: milliseconds(delay) })
}

/** The job is no longer wanted. */
export function cancel(reason?: string): Outcome {
  return new Outcome('cancel', { reason })
}

/** The job cannot be done; do not try again. */
export function discard(reason?: string): Outcome {
  return new Outcome('discard', { reason })
}

/** What a handler knows of its job. */
export interface JobContext<Input> {
  /** The output of the task's input schema. */
  readonly input: Input
  readonly job: {
    readonly id: string
    /** From 1. */
    readonly attempt: number
    readonly maxAttempts: number
    readonly tags: readonly string[]
    readonly insertedAt: Date
  }
  /** Fires on timeout, cancellation, a lost claim, or at the end of the grace period of a stop; its reason is a TriphaseError. */
  readonly signal: AbortSignal
  /** The same for every attempt of this job: send it to APIs that deduplicate by such a key. */
  readonly idempotencyKey: string
}

/** What can be set for a task; each can be overridden where a job is enqueued, unless noted. */
export interface TaskOptions {
  /** Default `'default'`. */
  queue?: string
  /** Default `'normal'`. */
  priority?: Priority
  /** Attempts before a failing job is discarded. Default 10. */
  maxAttempts?: number
  /** How often a process may die while running a job before the job is taken to be the cause, and discarded. Default 3. */
  maxCrashes?: number
  /** Time for one attempt (for a staged task: prepare and call). Default: the queue's timeout. */
  timeout?: Duration
  /** Delays between attempts. Only for the task. */
  backoff?: Backoff
}

/** A task as far as enqueueing needs it: its name, its options, and the type of its input. */
export interface TaskReference<RawInput> {
  readonly name: string
  readonly input: StandardSchemaV1<RawInput, unknown>
  readonly options: Readonly<TaskOptions>
}

/** The step under which the whole answer of a staged task's call is stored, whatever steps it was made of. */
export const WHOLE_ANSWER = 'call'

/** Statements on the engine's own pool, each unnamed and in a transaction of its own. */
export interface EngineStatements {
  /** Name of the engine's schema. */
  readonly schema: string
  /** The statement's text for this schema. */
  text(sql: string): string
  query<Row>(sql: string, values?: readonly unknown[]): Promise<Row[]>
}

/** What the engine offers to the code that runs a claim; tasks of all kinds are built on it. */
export interface ExecutionContext<Tx> extends JobContext<unknown> {
  readonly claim: ClaimedJob
  /** For tasks that keep books of their own in the engine's schema. */
  readonly engine: EngineStatements
  /** Says that jobs of this queue were written by such statements. */
  announce(queue: string): void
  /** Names the phase that the claim is in, for the ledger and for errors. */
  enterPhase(name: string): void
  /** Ends the attempt's time limit: what follows is not interrupted by it. */
  stopTimer(): void
  /** Runs `work` in a transaction of the application's pool; `opened` says where its code is. */
  transaction<Value>(work: (tx: Tx) => Promise<Value>, opened?: () => string): Promise<Value>
  /** Runs one statement on the application's pool, holding a connection only for that. */
  query(text: string, values?: readonly unknown[]): Promise<{ rows: unknown[] }>
  /** The answer that is stored for a step of the job, as JSON text. */
  storedAnswer(step: string): Promise<string | undefined>
  /** Stores an answer until it is stored or the engine is stopped; returns the one that stands: the first that was stored. */
  storeAnswer(step: string, json: string): Promise<string>
  /** Does an idempotent thing until it succeeds, its failure cannot pass, or the signal fires; tells of every try that failed. */
  persist<Value>(
    statement: string,
    work: () => Promise<Value>,
    mayPass: (error: unknown) => boolean,
  ): Promise<Value>
  /** Runs `work` and completes the job with what it returns, in one transaction. */
  commit(work: (tx: Tx) => Promise<unknown>, opened?: () => string): Promise<Outcome>
}

/**
 * A kind of job: a name, a schema of its input, and the code that runs it.
 *
 * `RawInput` is what is given when enqueueing; `Tx` is the type of transaction it needs of the application's pool
 * (`unknown`: none).
 */
export interface Task<RawInput = unknown, Tx = unknown> extends TaskReference<RawInput> {
  /** What it returns, or what its promise resolves to, is the job's result or an `Outcome`. */
  readonly execute: (context: ExecutionContext<Tx>) => unknown
  /** Runs in the transaction that discards or cancels a job of which this process had a claim. */
  readonly abandon: ((context: AbandonContext<unknown, Tx>) => unknown) | undefined
}

/** What a task's `abandon` gets. */
export interface AbandonContext<RawInput, Tx> {
  /** Commits together with the job's end. */
  readonly tx: Tx
  /** The input as it was enqueued: it may be what is wrong. */
  readonly input: RawInput
  readonly job: JobContext<unknown>['job']
  readonly state: 'discarded' | 'cancelled'
  /** Why; what the handler threw, where it threw. */
  readonly error: Error
}

/** @see defineTask */
export interface TaskDefinition<RawInput, Input> extends TaskOptions {
  /** Unique among the engine's tasks; stored with each job. */
  name: string
  /** Any Standard Schema (Zod, Valibot, ArkType, …). Checked when enqueueing and again before running. */
  input: StandardSchemaV1<RawInput, Input>
  /** Runs the job. It may be run more than once; it holds no connection unless it checks one out. */
  run: (context: JobContext<Input>) => unknown
}

/**
 * Defines a task of one piece. For a slow external call whose answer has to be written, see `defineStagedTask`.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const sendReceipt = defineTask({
 *   name: 'send-receipt',
 *   input: z.object({ orderId: z.string() }),
 *   run: async ({ input, signal }) => mailer.send(input.orderId, { signal }),
 * })
 */
export function defineTask<RawInput, Input>(
  definition: TaskDefinition<RawInput, Input>,
): Task<RawInput, unknown> {
  const { name, input, run, ...options } = definition
  const execute = (context: ExecutionContext<unknown>) => run(jobContextOf<Input>(context))
  return taskOf(name, input, options, { run }, execute)
}

/** What a handler sees of an execution context; with properties of its own, so that it can be spread. */
function jobContextOf<Input>(context: ExecutionContext<unknown>): JobContext<Input> {
  return {
    input: context.input as Input,
    job: context.job,
    get signal() {
      return context.signal
    },
    get idempotencyKey() {
      return context.idempotencyKey
    },
  }
}

/** Builds a task from parts, refusing options that cannot work, and `handlers` that are not there. */
export function taskOf<RawInput, Tx>(
  name: string,
  input: StandardSchemaV1<RawInput, unknown>,
  options: TaskOptions,
  handlers: Readonly<Record<string, unknown>>,
  execute: (context: ExecutionContext<Tx>) => unknown,
  abandon?: (context: AbandonContext<unknown, Tx>) => unknown,
): Task<RawInput, Tx> {
  const faults = [...handlerFaults(input, handlers), ...optionFaults(options)]
  if (typeof name !== 'string' || !/^[\w.:/-]{1,200}$/.test(name)) {
    faults.unshift('name: 1 to 200 letters, digits or any of _ . : / -')
  }
  if (faults.length > 0) {
    throw new TriphaseError(
      'INVALID_OPTIONS',
      `Task ${JSON.stringify(name)} cannot work: ${faults.join('; ')}.`,
    )
  }
  return Object.freeze({ name, input, options: Object.freeze({ ...options }), execute, abandon })
}

/** Types say so, and JavaScript is written too: a job would find out at each of its attempts. */
function handlerFaults(input: unknown, handlers: Readonly<Record<string, unknown>>): string[] {
  const missing = Object.keys(handlers).filter((name) => typeof handlers[name] !== 'function')
  const faults = missing.map((name) => `${name}: a function`)
  const isSchema = (typeof input === 'object' || typeof input === 'function') && input && '~standard' in input
  return isSchema ? faults : ['input: a schema (of Zod, Valibot or others), or unchecked<Type>()', ...faults]
}

const OPTION_NAMES = new Set(['queue', 'priority', 'maxAttempts', 'maxCrashes', 'timeout', 'backoff'])

/** Names each option that is unknown or out of range; `others` are known besides. */
export function optionFaults(options: TaskOptions, others: readonly string[] = []): string[] {
  const faults: string[] = []
  const known = [...OPTION_NAMES, ...others]
  for (const key of Object.keys(options)) {
    if (!OPTION_NAMES.has(key)) faults.push(`${key}: there is no such option (there are ${known.join(', ')})`)
  }
  if (options.priority !== undefined && !['urgent', 'high', 'normal', 'low'].includes(options.priority)) {
    faults.push('priority: urgent, high, normal or low')
  }
  if (options.queue !== undefined && !isQueueName(options.queue)) faults.push(`queue: ${QUEUE_NAME_RULE}`)
  for (const key of ['maxAttempts', 'maxCrashes'] as const) {
    const value = options[key]
    if (value !== undefined && !(Number.isInteger(value) && value >= 1 && value <= 32_767)) {
      faults.push(`${key}: a whole number from 1 to 32767`)
    }
  }
  if (options.timeout !== undefined) faults.push(...durationFaults('timeout', options.timeout))
  if (options.backoff !== undefined) faults.push(...backoffFaults(options.backoff))
  return faults
}

function backoffFaults(backoff: Backoff): string[] {
  const known = ['initial', 'max', 'factor']
  const unknown = Object.keys(backoff).filter((key) => !known.includes(key))
  const faults = unknown.map(
    (key) => `backoff.${key}: there is no such option (there are ${known.join(', ')})`,
  )
  for (const key of ['initial', 'max'] as const) {
    const value = backoff[key]
    if (value !== undefined) faults.push(...durationFaults(`backoff.${key}`, value))
  }
  const { factor } = backoff
  if (factor !== undefined && !(Number.isFinite(factor) && factor >= 1)) {
    faults.push('backoff.factor: a number of at least 1')
  }
  return faults
}

export const QUEUE_NAME_RULE = '1 to 100 letters, digits or any of _ . : / -'

export function isQueueName(name: unknown): boolean {
  return typeof name === 'string' && /^[\w.:/-]{1,100}$/.test(name)
}

export const STORABLE_TEXT = '1 to 500 characters, without \\u0000 and halves of surrogate pairs'

/** Postgres' text has no place for \u0000, and UTF-8 none for half of a surrogate pair. */
export function isStorableText(text: unknown): boolean {
  if (typeof text !== 'string') return false
  return text.length > 0 && text.length <= 500 && !text.includes('\u0000') && text.isWellFormed()
}

function durationFaults(name: string, value: Duration): string[] {
  try {
    const length = milliseconds(value)
    return length > 0 && length <= LONGEST_TIMER_MS ? [] : [`${name}: more than 0 ms and at most 24 days`]
  } catch {
    return [`${name}: milliseconds as a number, or a number with ms, s, m, h or d, such as '150s'`]
  }
}

/**
 * A schema that checks nothing, for inputs whose type is trusted.
 *
 * @example
 * defineTask({ name: 'ping', input: unchecked<{ url: string }>(), run: ({ input }) => fetch(input.url) })
 */
export function unchecked<Input>(): StandardSchemaV1<Input, Input> {
  return { '~standard': { version: 1, vendor: 'triphase', validate: (value) => ({ value: value as Input }) } }
}

/**
 * Validates a value, naming the path of every fault.
 *
 * @throws {TriphaseError} with `code`.
 */
export function validated<Output>(
  schema: StandardSchemaV1<unknown, Output>,
  value: unknown,
  code: 'INVALID_INPUT' | 'INVALID_ANSWER',
  subject: string,
): Output | Promise<Output> {
  const checked = schema['~standard'].validate(value)
  if (checked instanceof Promise) return checked.then((outcome) => fittingValue(outcome, code, subject))
  return fittingValue(checked, code, subject)
}

function fittingValue<Output>(
  outcome: StandardSchemaV1.Result<Output>,
  code: 'INVALID_INPUT' | 'INVALID_ANSWER',
  subject: string,
): Output {
  if (!outcome.issues) return outcome.value
  const faults = outcome.issues.map((issue) => `${pathOf(issue)}${issue.message}`)
  throw new TriphaseError(code, `${subject} does not fit its schema: ${faults.join('; ')}`)
}

function pathOf(issue: StandardSchemaV1.Issue): string {
  const path = (issue.path ?? []).map((segment) =>
    String(typeof segment === 'object' ? segment.key : segment),
  )
  return path.length > 0 ? `${path.join('.')}: ` : ''
}

/**
 * A value as JSON text.
 *
 * @throws {TriphaseError} `NOT_JSON` when it cannot be written as JSON (a BigInt, a cycle, a function).
 */
export function jsonText(value: unknown, subject: string): string {
  try {
    const text = JSON.stringify(value ?? null)
    if (text !== undefined) return text
  } catch (cause) {
    throw new TriphaseError(
      'NOT_JSON',
      `${subject} cannot be written as JSON: ${(cause as Error).message}.`,
      { cause },
    )
  }
  throw new TriphaseError('NOT_JSON', `${subject} cannot be written as JSON: it is a ${typeof value}.`)
}
