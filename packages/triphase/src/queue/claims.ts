import type { TriphaseError } from '../errors.ts'
import type { ClaimedJob } from '../job.ts'
import type { Ack, AttemptRow } from '../store/ack.ts'
import type { JobEvent } from '../telemetry.ts'
import { ClaimLedger } from './ledger.ts'

/** A claim in the hands of this process, from the moment it arrives until its ack is written or it is lost. */
export class RunningClaim {
  readonly job: ClaimedJob
  /** When its handler was started, in milliseconds of monotonic time. */
  startedAt = 0
  readonly ledger: ClaimLedger = new ClaimLedger()
  /** The handler has ended and its outcome is being written: news that the claim is gone says nothing then. */
  settled = false
  lost = false
  /** Why it could not get a connection of the application, when it last could not. */
  noConnection: unknown
  // Made when somebody asks for the signal: a controller and its listener are a third of what a quick job allocates.
  #controller: AbortController | undefined
  #reason: TriphaseError | undefined
  #onAbort: (() => void) | undefined
  #stores: Set<Promise<unknown>> | undefined

  constructor(job: ClaimedJob) {
    this.job = job
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController()
      if (this.#reason) this.#controller.abort(this.#reason)
    }
    return this.#controller.signal
  }

  /** Why the signal has fired; undefined when it has not. */
  get abortReason(): TriphaseError | undefined {
    return this.#reason
  }

  /** Calls `listener` once the signal has fired, or at once if it has. One listener at a time. */
  onAbort(listener: () => void): void {
    this.#onAbort = listener
    if (this.#reason) listener()
  }

  abort(reason: TriphaseError): void {
    if (this.#reason) return
    this.#reason = reason
    this.#controller?.abort(reason)
    this.#onAbort?.()
  }

  /** Whether an answer that was paid for is being stored. */
  get storing(): boolean {
    return this.#stores !== undefined && this.#stores.size > 0
  }

  /** Marks the claim as storing until `stored` settles. */
  async whileStoring<Value>(stored: Promise<Value>): Promise<Value> {
    this.#stores ??= new Set()
    const stores = this.#stores
    stores.add(stored)
    try {
      return await stored
    } finally {
      stores.delete(stored)
    }
  }

  /** Resolves when nothing that is being stored now is left. */
  async stored(): Promise<void> {
    await Promise.allSettled(this.#stores ?? [])
  }

  /** An ack of this claim; whatever is not given is absent. */
  ack(state: Ack['state'], details: Partial<Ack>): Ack {
    return {
      jobId: this.job.id,
      claimNo: this.job.claimNo,
      state,
      delayMs: details.delayMs ?? 0,
      countsAsAttempt: details.countsAsAttempt ?? true,
      result: details.result ?? null,
      error: details.error ?? null,
      attempt: details.attempt ?? null,
      dropAnswers: details.dropAnswers ?? null,
    }
  }

  /** What is kept of this claim: how it ended, and its connection time so far. */
  attemptRow(outcome: AttemptRow['outcome']): AttemptRow {
    const { phases, ...ledger } = this.ledger.read()
    return { outcome, ...ledger, phases: JSON.stringify(phases) }
  }

  event(): JobEvent {
    const { id: jobId, task, queue, attempt, claimNo } = this.job
    return { jobId, task, queue, attempt, claimNo }
  }
}

/** The claims that this process holds, by job. */
export class RunningClaims {
  readonly #claims = new Map<string, RunningClaim>()
  readonly #emptied = new Set<() => void>()
  readonly #ended = new Map<RunningClaim, () => void>()

  get size(): number {
    return this.#claims.size
  }

  add(claim: RunningClaim): RunningClaim {
    this.#claims.set(claim.job.id, claim)
    return claim
  }

  get(jobId: string): RunningClaim | undefined {
    return this.#claims.get(jobId)
  }

  /** The claim is acked or lost. A later claim of the same job, which may be there already, stays. */
  remove(claim: RunningClaim): void {
    this.#ended.get(claim)?.()
    this.#ended.delete(claim)
    if (this.#claims.get(claim.job.id) !== claim) return
    this.#claims.delete(claim.job.id)
    if (this.#claims.size > 0) return
    for (const resolve of this.#emptied) resolve()
    this.#emptied.clear()
  }

  all(): RunningClaim[] {
    return [...this.#claims.values()]
  }

  /** What the heartbeat says of this process's claims. */
  held(): { jobId: string; claimNo: number }[] {
    return this.all().map(({ job }) => ({ jobId: job.id, claimNo: job.claimNo }))
  }

  /** Resolves when the claim is acked or lost. */
  end(claim: RunningClaim): Promise<void> {
    if (this.#claims.get(claim.job.id) !== claim) return Promise.resolve()
    return new Promise((resolve) => this.#ended.set(claim, resolve))
  }

  /** Resolves when no claim is left. */
  empty(): Promise<void> {
    if (this.#claims.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#emptied.add(resolve))
  }
}
