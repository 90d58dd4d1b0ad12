import { storedError, TriphaseError } from '../errors.ts'
import { untilDone } from '../retry.ts'
import { type Ack, ackedClaims, finishJobs } from '../store/ack.ts'
import { findAnswers, storeAnswer } from '../store/answer.ts'
import { type Database, isConnectionFailure, isDataError } from '../store/database.ts'
import { withPartition } from '../store/partitions.ts'
import type { Transactor } from '../store/transactor.ts'
import { type ExecutionContext, jsonText, Outcome } from '../task.ts'
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

type Context = ExecutionContext<unknown>

/** Makes what the engine offers to the code that runs a claim. */
export class ExecutionContexts {
  readonly #parts: ContextParts

  constructor(parts: ContextParts) {
    this.#parts = parts
  }

  of(claim: RunningClaim, input: unknown, stopTimer: () => void): Context {
    const { id, attempt, maxAttempts, tags, insertedAt } = claim.job
    const { schema } = this.#parts.database
    return {
      claim: claim.job,
      engine: this.#parts.database,
      announce: this.#parts.onAvailable,
      job: { id, attempt, maxAttempts, tags, insertedAt },
      input,
      get signal() {
        return claim.signal
      },
      // With the time of enqueueing: ids begin anew in another database, and with them would the keys.
      get idempotencyKey() {
        return `${schema}-${id}-${insertedAt.getTime().toString(36)}`
      },
      enterPhase: (name) => {
        claim.ledger.enterPhase(name)
        this.#parts.telemetry.emit('job:phase', { ...claim.event(), phase: name })
      },
      stopTimer,
      transaction: (work, opened) => this.#transaction(claim, work, opened),
      query: (text, values = []) => this.#query(claim, text, values),
      storedAnswers: () =>
        this.#retried('find answers', () => findAnswers(this.#parts.database, claim.job.id)),
      storeAnswer: (step, json) => this.#storeAnswer(claim, step, json),
      commit: (work, opened) => this.#commit(claim, work, opened),
    }
  }

  #transaction<Value>(
    claim: RunningClaim,
    work: (tx: unknown) => Promise<Value>,
    opened?: () => string,
  ): Promise<Value> {
    return this.#holding(claim, opened, (began) =>
      this.#parts.application.transaction((tx) => {
        began()
        return work(tx)
      }),
    )
  }

  #query(claim: RunningClaim, text: string, values: readonly unknown[]): Promise<{ rows: unknown[] }> {
    const { application } = this.#parts
    if (!application.query) return this.#transaction(claim, (tx) => application.execute(tx, text, values))
    const { query } = application
    return this.#holding(claim, undefined, (began) => {
      // A pool's own query does not say when it got its connection: all of it counts as held.
      began()
      return query.call(application, text, values)
    })
  }

  #holding<Value>(
    claim: RunningClaim,
    opened: (() => string) | undefined,
    run: (began: () => void) => Promise<Value>,
  ): Promise<Value> {
    const { holds, telemetry } = this.#parts
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

  async #storeAnswer(claim: RunningClaim, step: string, json: string): Promise<string> {
    const bytes = Buffer.byteLength(json)
    if (bytes > this.#parts.maxAnswerBytes) {
      throw new TriphaseError(
        'ANSWER_TOO_LARGE',
        `The answer of step ${step} has ${bytes} bytes, more than maxAnswerBytes (${this.#parts.maxAnswerBytes}). Return less, or store large parts elsewhere and return a reference.`,
      )
    }
    const { id: jobId, claimNo } = claim.job
    const { database, telemetry } = this.#parts
    const storing = this.#retried('store answer', () => storeAnswer(database, { jobId, claimNo, step, json }))
    const standing = await claim.whileStoring(storing).catch((error: unknown) => {
      throw isDataError(error) ? refusedAnswer(step, error) : error
    })
    telemetry.emit('job:answer-stored', { ...claim.event(), step, bytes, first: standing.first })
    return standing.json
  }

  /** Runs a task's `abandon` and ends its job with `ack`, in one transaction. */
  async abandon(claim: RunningClaim, ack: Ack, work: (tx: unknown) => unknown): Promise<void> {
    const once = () =>
      this.#finishWith(claim, async (tx) => {
        await work(tx)
        return ack
      })
    await this.#retried('abandon', once, isConnectionFailure)
  }

  async #commit(
    claim: RunningClaim,
    work: (tx: unknown) => Promise<unknown>,
    opened?: () => string,
  ): Promise<Outcome> {
    let result: unknown
    const finish = async (tx: unknown) => {
      result = await work(tx)
      const json = jsonText(result, 'The result')
      return claim.ack('completed', { result: json, attempt: claim.attemptRow('completed') })
    }
    await this.#finishWith(claim, finish, opened)
    return new Outcome('acknowledged', { result })
  }

  /**
   * The application's rows and the ack, together or not at all. An error after the ack was sent leaves open whether
   * the transaction committed: then history decides, by job and claim number.
   */
  async #finishWith(
    claim: RunningClaim,
    work: (tx: unknown) => Promise<Ack>,
    opened?: () => string,
  ): Promise<void> {
    let sent = false
    const finish = async (tx: unknown) => {
      const ack = await work(tx)
      sent = true
      claim.settled = true
      await this.#acknowledgeIn(tx, ack)
    }
    const once = () => this.#transaction(claim, finish, opened)
    try {
      await withPartition(this.#parts.database, once)
    } catch (error) {
      if (!sent || isLost(error) || !(await this.#committedAnyway(claim))) {
        claim.settled = false
        throw error
      }
    }
  }

  async #acknowledgeIn(tx: unknown, ack: Ack): Promise<void> {
    const { application, database, keepCompleted } = this.#parts
    const run = async (text: string, values: readonly unknown[]) =>
      (await application.execute(tx, database.text(text), values)).rows
    const acked = await finishJobs(run, [ack], keepCompleted)
    if (!acked.has(ack.jobId)) {
      throw new TriphaseError(
        'CLAIM_LOST',
        `Job ${ack.jobId} was taken over by another process, which finishes it; this transaction is rolled back.`,
      )
    }
  }

  async #committedAnyway(claim: RunningClaim): Promise<boolean> {
    const { id: jobId, claimNo } = claim.job
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
    const { closing, telemetry } = this.#parts
    return untilDone(work, mayPass, closing, (error, retryInMs) => {
      const name = isConnectionFailure(error) ? `${statement} (no connection)` : statement
      telemetry.emit('statement:failed', { statement: name, error: storedError(error), retryInMs })
    })
  }
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
