import { setTimeout as delay } from 'node:timers/promises'
import { backoffDelay } from '../backoff.ts'
import { LONGEST_DELAY_MS, milliseconds } from '../duration.ts'
import {
  type ErrorCode,
  Permanent,
  RejectedAnswer,
  RetryAfter,
  storedError,
  TriphaseError,
} from '../errors.ts'
import type { Ack } from '../store/ack.ts'
import { type ExecutionContext, Outcome, type Task, validated, WHOLE_ANSWER } from '../task.ts'
import type { Telemetry, TelemetryEvents } from '../telemetry.ts'
import type { Acker } from './acker.ts'
import type { RunningClaim, RunningClaims } from './claims.ts'
import { ClaimContext, type ContextParts, resultText } from './context.ts'
import type { Holds } from './holds.ts'

type Settled = { value: unknown } | { thrown: unknown }
type AnyTask = Task<unknown, never>
type Reported = 'job:retried' | 'job:snoozed' | 'job:handed-back' | 'job:cancelled' | 'job:discarded'
type Details<Name extends Reported> = Omit<TelemetryEvents[Name], keyof ReturnType<RunningClaim['event']>>

/** What the executor needs to know beyond its claim. */
export interface ExecutorParts {
  tasks: ReadonlyMap<string, AnyTask>
  claims: RunningClaims
  acker: Acker
  context: ContextParts
  holds: Holds
  telemetry: Telemetry
  queueTimeoutMs: (queue: string) => number
  abortGraceMs: number
  /** A job was sent back to its queue. */
  onAvailable: (queue: string) => void
  /** A job was sent back to waiting, due in so many milliseconds; even in none at all it must be staged. */
  onScheduled: (delayMs: number) => void
}

const UNKNOWN_TASK_DELAY_MS = 30_000
/** Until a job asks again for a connection of the application that it could not get. */
const LONGEST_WITHOUT_CONNECTION_MS = 30_000

/** Runs claims: from the claimed row to an outcome that the acker writes. */
export class Executor {
  readonly #parts: ExecutorParts

  constructor(parts: ExecutorParts) {
    this.#parts = parts
  }

  /** Runs one claim. Resolves when its slot is free again: the handler has settled and its outcome was handed over. */
  async run(claim: RunningClaim): Promise<void> {
    const { telemetry, context } = this.#parts
    const { job } = claim
    claim.startedAt = performance.now()
    if (telemetry.hears('job:started')) {
      const queuedMs = job.claimedAt.getTime() - job.insertedAt.getTime()
      telemetry.emit('job:started', { ...claim.event(), queuedMs })
    }
    const task = this.#parts.tasks.get(job.task)
    if (!task) return this.#unknownTask(claim)
    if (claim.abortReason) {
      // Cancelled or lost while it waited for a slot.
      claim.settled = true
      return this.#acknowledge(claim, task, { thrown: claim.abortReason })
    }

    const timer = this.#startTimer(claim, task)
    const handler = settle(async () => {
      const checked = validated(task.input, job.input, 'INVALID_INPUT', `The input of job ${job.id}`)
      const input = checked instanceof Promise ? await checked : checked
      const given: ExecutionContext<unknown> = new ClaimContext(context, claim, input, timer)
      return task.execute(given as ExecutionContext<never>)
    })
    const settled = await this.#unlessLeaked(claim, handler)
    clearTimeout(timer)
    claim.ledger.enterPhase(undefined)
    if (claim.ledger.checkouts > 0) {
      const durationMs = performance.now() - claim.startedAt
      this.#parts.holds.count(job.task, job.queue, durationMs, claim.ledger.read())
    }
    claim.settled = true
    void this.#acknowledge(claim, task, settled ?? { thrown: claim.abortReason })
    if (!settled) {
      telemetry.emit('job:leaked', { ...claim.event(), reason: (claim.signal.reason as Error).message })
      await handler
    }
  }

  /** Returns a claim that was never started to its queue. */
  async handBack(claim: RunningClaim): Promise<void> {
    claim.settled = true
    if (claim.lost) return this.#lost(claim)
    return this.#write(claim, claim.ack('available', { countsAsAttempt: false }), 'job:handed-back', {})
  }

  #startTimer(claim: RunningClaim, task: AnyTask): NodeJS.Timeout {
    const ofTask = task.options.timeout === undefined ? null : milliseconds(task.options.timeout)
    const limitMs = claim.job.timeoutMs ?? ofTask ?? this.#parts.queueTimeoutMs(claim.job.queue)
    return setTimeout(() => {
      claim.abort(
        new TriphaseError(
          'TIMEOUT',
          `Task ${task.name} took longer than ${limitMs} ms. Raise its timeout, or make its call shorter.`,
        ),
      )
    }, limitMs)
  }

  /**
   * What the handler settles to, or undefined when it has ignored its signal for too long. As long as it is storing an
   * answer it ignores nothing: given up then, the job would make a call again whose answer is at hand.
   */
  #unlessLeaked(claim: RunningClaim, handler: Promise<Settled>): Promise<Settled | undefined> {
    return new Promise((resolve) => {
      void handler.then(resolve)
      claim.onAbort(() => void this.#graceIsOver(claim).then(resolve))
    })
  }

  async #graceIsOver(claim: RunningClaim): Promise<undefined> {
    do {
      await claim.stored()
      await delay(this.#parts.abortGraceMs, undefined, { ref: false })
    } while (claim.storing)
  }

  async #unknownTask(claim: RunningClaim): Promise<void> {
    const error = new TriphaseError(
      'UNKNOWN_TASK',
      `This process has no task ${claim.job.task}, though it works on queue ${claim.job.queue}. Deploy the task here, or take the queue from this process.`,
    )
    claim.settled = true
    const ack = claim.ack('scheduled', { delayMs: UNKNOWN_TASK_DELAY_MS, countsAsAttempt: false })
    await this.#write(claim, ack, 'job:retried', {
      delayMs: UNKNOWN_TASK_DELAY_MS,
      countsAsAttempt: false,
      error: storedError(error),
    })
  }

  async #acknowledge(claim: RunningClaim, task: AnyTask, settled: Settled): Promise<void> {
    if (claim.lost) return this.#lost(claim)
    try {
      if ('value' in settled) await this.#succeeded(claim, task, settled.value)
      else await this.#failed(claim, task, settled.thrown)
    } catch (thrown) {
      const known = thrown instanceof TriphaseError
      const error = known ? thrown : new Permanent('the outcome cannot be stored', { cause: thrown })
      await this.#failed(claim, task, error)
    }
  }

  async #succeeded(claim: RunningClaim, task: AnyTask, value: unknown): Promise<void> {
    const outcome = value instanceof Outcome ? value : new Outcome('complete', { result: value })
    const { result, reason } = outcome
    const delayMs = Math.min(outcome.delayMs, LONGEST_DELAY_MS)
    switch (outcome.kind) {
      case 'acknowledged':
        return this.#completed(claim, result)
      case 'complete': {
        const attempt = claim.ledger.checkouts > 0 ? claim.attemptRow('completed') : null
        const text = resultText(result, this.#parts.context.maxAnswerBytes)
        const ack = claim.ack('completed', { result: text, attempt })
        if ((await this.#parts.acker.add(ack)) === 'acked') this.#completed(claim, result)
        else this.#lost(claim)
        return
      }
      case 'snooze': {
        if (codeOf(claim.abortReason) === 'CANCELLED')
          return this.#cancelled(claim, task, (claim.abortReason as Error).message)
        const state = delayMs > 0 ? 'scheduled' : 'available'
        return this.#write(claim, claim.ack(state, { delayMs, countsAsAttempt: false }), 'job:snoozed', {
          delayMs,
        })
      }
      case 'cancel':
        return this.#cancelled(claim, task, reason ?? null)
      case 'discard':
        return this.#discarded(claim, task, new Permanent(reason ?? 'discarded by its handler'))
    }
  }

  async #failed(claim: RunningClaim, task: AnyTask, thrown: unknown): Promise<void> {
    const { job } = claim
    const aborted = codeOf(claim.abortReason)
    if (claim.lost || codeOf(thrown) === 'CLAIM_LOST') return this.#lost(claim)
    if (aborted === 'CANCELLED') return this.#cancelled(claim, task, (claim.abortReason as Error).message)
    if (aborted === 'STOPPING') {
      return this.#write(claim, claim.ack('available', { countsAsAttempt: false }), 'job:handed-back', {})
    }
    // An answer that came too late for the signal may still have been of no use.
    const late = aborted === 'TIMEOUT' && !(thrown instanceof RejectedAnswer)
    const error = late ? claim.abortReason : thrown
    if (thrown instanceof RetryAfter && aborted === undefined)
      return this.#retried(claim, thrown, Math.min(thrown.delayMs, LONGEST_DELAY_MS), false)
    // Not the job's fault: nothing was begun. Claims are counted, as attempts are not: else the pause would not grow.
    if (claim.noConnection && thrown === claim.noConnection && aborted === undefined) {
      const pauseMs = backoffDelay(job.claimNo, task.options.backoff ?? {})
      return this.#retried(claim, thrown, Math.min(pauseMs, LONGEST_WITHOUT_CONNECTION_MS), false)
    }
    if (isPermanent(error) || job.attempt >= job.maxAttempts) return this.#discarded(claim, task, error)
    return this.#retried(claim, error, backoffDelay(job.attempt, task.options.backoff ?? {}), true)
  }

  #retried(claim: RunningClaim, thrown: unknown, delayMs: number, countsAsAttempt: boolean): Promise<void> {
    const error = storedError(thrown)
    const ack = claim.ack('retryable', {
      delayMs,
      countsAsAttempt,
      error: JSON.stringify(error),
      attempt: claim.attemptRow('retried'),
      dropAnswers: droppedBy(thrown),
    })
    return this.#write(claim, ack, 'job:retried', { delayMs, countsAsAttempt, error })
  }

  #cancelled(claim: RunningClaim, task: AnyTask, reason: string | null): Promise<void> {
    const thrown = new TriphaseError('CANCELLED', reason ?? 'cancelled by its handler')
    const ack = claim.ack('cancelled', {
      error: JSON.stringify(storedError(thrown)),
      attempt: claim.attemptRow('cancelled'),
    })
    return this.#end(claim, task, ack, thrown, 'job:cancelled', { reason })
  }

  #discarded(claim: RunningClaim, task: AnyTask, thrown: unknown): Promise<void> {
    const error = storedError(thrown)
    const ack = claim.ack('discarded', {
      error: JSON.stringify(error),
      attempt: claim.attemptRow('discarded'),
      dropAnswers: droppedBy(thrown),
    })
    const cause = thrown instanceof Error ? thrown : new Error(error.message)
    return this.#end(claim, task, ack, cause, 'job:discarded', { error })
  }

  /** Ends a job for good, together with what its task wants written then. */
  async #end<Name extends 'job:cancelled' | 'job:discarded'>(
    claim: RunningClaim,
    task: AnyTask,
    ack: Ack,
    error: Error,
    name: Name,
    details: Details<Name>,
  ): Promise<void> {
    if (task.abandon && (await this.#abandoned(claim, task, ack, error))) {
      return this.#written(claim, ack, name, details)
    }
    return this.#write(claim, ack, name, details)
  }

  async #abandoned(claim: RunningClaim, task: AnyTask, ack: Ack, error: Error): Promise<boolean> {
    const state = ack.state as 'discarded' | 'cancelled'
    const { input, ...job } = claim.job
    try {
      await new ClaimContext(this.#parts.context, claim, input).abandon(ack, (tx) =>
        task.abandon?.({ tx: tx as never, input, job, state, error }),
      )
      return true
    } catch (thrown) {
      const event = { statement: `abandon of ${task.name}`, error: storedError(thrown), retryInMs: null }
      this.#parts.telemetry.emit('statement:failed', event)
      return false
    }
  }

  async #write<Name extends Reported>(
    claim: RunningClaim,
    ack: Ack,
    name: Name,
    details: Details<Name>,
  ): Promise<void> {
    const outcome = await this.#parts.acker.add(ack)
    if (outcome !== 'acked') return this.#lost(claim)
    this.#written(claim, ack, name, details)
  }

  #written<Name extends Reported>(claim: RunningClaim, ack: Ack, name: Name, details: Details<Name>): void {
    this.#parts.claims.remove(claim)
    if (ack.state === 'available') this.#parts.onAvailable(claim.job.queue)
    if (ack.state === 'retryable' || ack.state === 'scheduled') this.#parts.onScheduled(ack.delayMs)
    this.#parts.telemetry.emit(name, { ...claim.event(), ...details } as TelemetryEvents[Name])
  }

  #completed(claim: RunningClaim, result: unknown): void {
    const { claims, telemetry } = this.#parts
    claims.remove(claim)
    if (!telemetry.hears('job:completed')) return
    const durationMs = performance.now() - claim.startedAt
    telemetry.emit('job:completed', { ...claim.event(), durationMs, ledger: claim.ledger.read(), result })
  }

  #lost(claim: RunningClaim): void {
    claim.lost = true
    this.#parts.claims.remove(claim)
    this.#parts.telemetry.emit('job:lost', claim.event())
  }
}

async function settle(work: () => unknown): Promise<Settled> {
  try {
    return { value: await work() }
  } catch (thrown) {
    return { thrown }
  }
}

/** Steps whose answers are dropped with the attempt; the whole answer goes with each step that it was made of. */
function droppedBy(thrown: unknown): readonly string[] | null {
  if (!(thrown instanceof RejectedAnswer)) return null
  return thrown.steps ? [WHOLE_ANSWER, ...thrown.steps] : []
}

const PERMANENT_CODES = new Set([
  'INVALID_INPUT',
  'NOT_JSON',
  'ANSWER_TOO_LARGE',
  'RESULT_TOO_LARGE',
  'WRITE_REFUSED',
])

function codeOf(reason: unknown): ErrorCode | undefined {
  return reason instanceof TriphaseError ? reason.code : undefined
}

function isPermanent(error: unknown): boolean {
  return error instanceof Permanent || (error instanceof TriphaseError && PERMANENT_CODES.has(error.code))
}
