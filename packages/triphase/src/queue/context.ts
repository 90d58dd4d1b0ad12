import { storedError, TriphaseError } from '../errors.ts'
import type { ClaimedJob } from '../job.ts'
import { untilDone } from '../retry.ts'
import { type Ack, ackedClaims, finishJobs } from '../store/ack.ts'
import { findAnswer, storeAnswer } from '../store/answer.ts'
import { type Database, isConnectionFailure, isDataError } from '../store/database.ts'
import { schemaFailure } from '../store/migrate.ts'
import { withPartition } from '../store/partitions.ts'
import { executeInside, type Transactor } from '../store/transactor.ts'
import { type ExecutionContext, type JobContext, jsonText, Outcome } from '../task.ts'
import type { Telemetry } from '../telemetry.ts'
import type { RunningClaim } from './claims.ts'
import type { Holds } from './holds.ts'

/** What an execution context works with. */
export interface ContextParts {
  database: Database
  application: Transactor<unknown>
  telemetry: Telemetry
  holds: Holds
  maxAnswerBytes: number
  /** Completed jobs are kept in history. */
  keepCompleted: boolean
  /** Fires when the engine closes its connections: nothing is tried again after that. */
  closing: AbortSignal
  /** A task wrote jobs of this queue. */
  onAvailable: (queue: string) => void
}

/** What the engine offers to the code that runs a claim. */
export class ClaimContext implements ExecutionContext<unknown> {
  readonly input: unknown
  readonly #parts: ContextParts
  readonly #claim: RunningClaim
  readonly #timer: NodeJS.Timeout | undefined

  /**
   * @param input of the task's handler.
   * @param timer the attempt's time limit.
   */
  constructor(parts: ContextParts, claim: RunningClaim, input: unknown, timer?: NodeJS.Timeout) {
    this.#parts = parts
    this.#claim = claim
    this.#timer = timer
    this.input = input
  }

  get claim(): ClaimedJob {
    return this.#claim.job
  }

  get engine(): Database {
    return this.#parts.database
  }

  get job(): JobContext<unknown>['job'] {
    const { id, attempt, maxAttempts, tags, insertedAt } = this.#claim.job
    return { id, attempt, maxAttempts, tags, insertedAt }
  }

  get signal(): AbortSignal {
    return this.#claim.signal
  }

  /** With the time of enqueueing: ids begin anew in another database, and with them would the keys. */
  get idempotencyKey(): string {
    const { id, insertedAt } = this.#claim.job
    return `${this.#parts.database.schema}-${id}-${insertedAt.getTime().toString(36)}`
  }

  announce(queue: string): void {
    this.#parts.onAvailable(queue)
  }

  enterPhase(phase: string): void {
    this.#claim.ledger.enterPhase(phase)
    this.#parts.telemetry.emit('job:phase', { ...this.#claim.event(), phase })
  }

  stopTimer(): void {
    clearTimeout(this.#timer)
  }

  transaction<Value>(work: (tx: unknown) => Promise<Value>, opened?: () => string): Promise<Value> {
    return this.#holding(opened, (began) =>
      this.#parts.application.transaction((tx) => {
        began()
        return work(tx)
      }),
    )
  }

  query(text: string, values: readonly unknown[] = []): Promise<{ rows: unknown[] }> {
    const { application } = this.#parts
    if (!application.query) return this.transaction((tx) => application.execute(tx, text, values))
    const { query } = application
    return this.#holding(undefined, (began) => {
      // A pool's own query does not say when it got its connection: all of it counts as held.
      began()
      return query.call(application, text, values)
    })
  }

  storedAnswer(step: string): Promise<string | undefined> {
    return this.#retried('find answer', () => findAnswer(this.#parts.database, this.#claim.job.id, step))
  }

  async storeAnswer(step: string, json: string): Promise<string> {
    const { database, telemetry, maxAnswerBytes } = this.#parts
    const bytes = Buffer.byteLength(json)
    if (bytes > maxAnswerBytes) {
      throw new TriphaseError(
        'ANSWER_TOO_LARGE',
        `The answer of step ${step} has ${bytes} bytes, more than maxAnswerBytes (${maxAnswerBytes}). Return less, or store large parts elsewhere and return a reference.`,
      )
    }
    const { id: jobId, claimNo } = this.#claim.job
    const storing = this.#retried('store answer', () => storeAnswer(database, { jobId, claimNo, step, json }))
    const standing = await this.#claim.whileStoring(storing).catch((error: unknown) => {
      throw isDataError(error) ? refusedAnswer(step, error) : error
    })
    telemetry.emit('job:answer-stored', { ...this.#claim.event(), step, bytes, first: standing.first })
    return standing.json
  }

  persist<Value>(
    statement: string,
    work: () => Promise<Value>,
    mayPass: (error: unknown) => boolean,
  ): Promise<Value> {
    return untilDone(work, mayPass, this.signal, (error, retryInMs) =>
      this.#report(statement, error, retryInMs),
    )
  }

  async commit(work: (tx: unknown) => Promise<unknown>, opened?: () => string): Promise<Outcome> {
    const claim = this.#claim
    let result: unknown
    const finish = async (tx: unknown) => {
      result = await work(tx)
      const json = resultText(result, this.#parts.maxAnswerBytes)
      return claim.ack('completed', { result: json, attempt: claim.attemptRow('completed') })
    }
    await this.#finishWith(finish, opened)
    return new Outcome('acknowledged', { result })
  }

  /** Runs a task's `abandon` and ends its job with `ack`, in one transaction. */
  async abandon(ack: Ack, work: (tx: unknown) => unknown): Promise<void> {
    const once = () =>
      this.#finishWith(async (tx) => {
        await work(tx)
        return ack
      })
    await this.#retried('abandon', once, isConnectionFailure)
  }

  #holding<Value>(
    opened: (() => string) | undefined,
    run: (began: () => void) => Promise<Value>,
  ): Promise<Value> {
    const { holds, telemetry } = this.#parts
    const claim = this.#claim
    const { id: jobId, task } = claim.job
    let held = false
    const holding = holds.during(
      { jobId, task, phase: claim.ledger.phase ?? null, opened },
      run,
      (waitMs) => {
        held = true
        const giveBack = claim.ledger.checkedOut(waitMs)
        const began = performance.now()
        return () => {
          giveBack()
          telemetry.emit('pool:held', {
            pool: 'application',
            waitMs,
            holdMs: performance.now() - began,
            jobId,
          })
        }
      },
    )
    return holding.catch((error: unknown) => {
      if (!held && isConnectionFailure(error)) claim.noConnection = error
      throw error
    })
  }

  /**
   * The application's rows and the ack, together or not at all. An error after the ack was sent leaves open whether
   * the transaction committed: then history decides, by job and claim number.
   */
  async #finishWith(work: (tx: unknown) => Promise<Ack>, opened?: () => string): Promise<void> {
    let sent = false
    const finish = async (tx: unknown) => {
      const ack = await work(tx)
      sent = true
      this.#claim.settled = true
      await this.#acknowledgeIn(tx, ack)
    }
    const once = () => this.transaction(finish, opened)
    try {
      await withPartition(this.#parts.database, once)
    } catch (error) {
      if (!sent || isLost(error) || !(await this.#committedAnyway())) {
        this.#claim.settled = false
        throw error
      }
    }
  }

  async #acknowledgeIn(tx: unknown, ack: Ack): Promise<void> {
    const { application, database, keepCompleted } = this.#parts
    const run = (text: string, values: readonly unknown[]) =>
      executeInside(application, tx, database.text(text), values)
    // The application's role, which may lack a grant, or the schema in its database.
    const acked = await finishJobs(run, [ack], keepCompleted).catch((error: unknown) => {
      throw schemaFailure(error, database.schema)
    })
    if (!acked.has(ack.jobId)) {
      throw new TriphaseError(
        'CLAIM_LOST',
        `Job ${ack.jobId} was taken over by another process, which finishes it; this transaction is rolled back.`,
      )
    }
  }

  async #committedAnyway(): Promise<boolean> {
    const { id: jobId, claimNo } = this.#claim.job
    const { database, keepCompleted } = this.#parts
    const acked = await this.#retried('find ack', () =>
      ackedClaims(database, [{ jobId, claimNo }], keepCompleted),
    )
    return acked.has(jobId)
  }

  #retried<Value>(
    statement: string,
    work: () => Promise<Value>,
    mayPass: (error: unknown) => boolean = (error) => !isDataError(error),
  ): Promise<Value> {
    return untilDone(work, mayPass, this.#parts.closing, (error, retryInMs) =>
      this.#report(statement, error, retryInMs),
    )
  }

  #report(statement: string, error: unknown, retryInMs: number): void {
    const name = isConnectionFailure(error) ? `${statement} (no connection)` : statement
    const event = { statement: name, error: storedError(error), retryInMs }
    this.#parts.telemetry.emit('statement:failed', event)
  }
}

/**
 * A result as JSON text.
 *
 * @throws {TriphaseError} `NOT_JSON`; `RESULT_TOO_LARGE`, since what takes too long to write would be tried again for ever.
 */
export function resultText(result: unknown, maxBytes: number): string {
  const json = jsonText(result, 'The result')
  // A character has at most three bytes.
  if (json.length * 3 <= maxBytes) return json
  const bytes = Buffer.byteLength(json)
  if (bytes <= maxBytes) return json
  throw new TriphaseError(
    'RESULT_TOO_LARGE',
    `The result has ${bytes} bytes, more than maxAnswerBytes (${maxBytes}). Return less, or store it elsewhere and return a reference.`,
  )
}

/** The same answer could never be stored, and to make the call again would cost the same. */
function refusedAnswer(step: string, cause: unknown): TriphaseError {
  return new TriphaseError(
    'WRITE_REFUSED',
    `The database refused the answer of step ${step}: ${(cause as Error).message}. Return something that fits into json.`,
    { cause },
  )
}

function isLost(error: unknown): boolean {
  return error instanceof TriphaseError && error.code === 'CLAIM_LOST'
}
