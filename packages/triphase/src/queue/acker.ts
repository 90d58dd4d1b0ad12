import { NaturalBatches } from '../batches.ts'
import { storedError, TriphaseError } from '../errors.ts'
import { untilDone } from '../retry.ts'
import { type Ack, ackedClaims, finishJobs, newestClaims, rescheduleJobs } from '../store/ack.ts'
import { type Database, isConnectionFailure, isDataError } from '../store/database.ts'
import { onEnginePool } from '../store/insert.ts'
import { withPartition } from '../store/partitions.ts'
import type { Telemetry } from '../telemetry.ts'

/** What became of an ack. `lost`: the claim was no longer this process's. */
export type AckOutcome = 'acked' | 'lost' | 'refused'

interface Waiting {
  ack: Ack
  resolve: (outcome: AckOutcome) => void
}

/** Writes a batch of outcomes; returns the ids of those whose claim still held. */
type Write = (acks: readonly Ack[]) => Promise<Set<string>>

const LARGEST_BATCH = 500

/**
 * Writes outcomes in natural batches. What finishes jobs and what sends them back are two lanes, each with one write at
 * a time.
 */
export class Acker {
  readonly #database: Database
  readonly #telemetry: Telemetry
  readonly #giveUp = new AbortController()
  readonly #keepCompleted: boolean
  readonly #finish = this.#lane((acks) => this.#finishJobs(acks))
  readonly #reschedule = this.#lane((acks) => rescheduleJobs(onEnginePool(this.#database), acks))
  readonly #drained = new Set<() => void>()
  /** Acks that stand for one that the database refused. */
  readonly #refusals = new WeakSet<Ack>()
  #pending = 0

  /** @param keepCompleted false: completed jobs leave nothing in history. */
  constructor(database: Database, telemetry: Telemetry, keepCompleted = true) {
    this.#database = database
    this.#telemetry = telemetry
    this.#keepCompleted = keepCompleted
  }

  /** Outcomes that are not written yet. */
  get pending(): number {
    return this.#pending
  }

  /** Writes an outcome; resolves once it is written, whatever it takes, or rejects when the acker was told to give up. */
  add(ack: Ack): Promise<AckOutcome> {
    const final = ack.state === 'completed' || ack.state === 'cancelled' || ack.state === 'discarded'
    const lane = final ? this.#finish : this.#reschedule
    this.#pending++
    return new Promise((resolve) => lane.add({ ack, resolve }))
  }

  /** Resolves when fewer than `limit` outcomes are waiting. */
  async below(limit: number): Promise<void> {
    while (this.#pending >= limit) await new Promise<void>((resolve) => this.#drained.add(resolve))
  }

  /** From now on a write that fails is not tried again. */
  giveUp(): void {
    this.#giveUp.abort()
  }

  #finishJobs(acks: readonly Ack[]): Promise<Set<string>> {
    return finishJobs(onEnginePool(this.#database), acks, this.#keepCompleted)
  }

  #lane(write: Write): NaturalBatches<Waiting> {
    return new NaturalBatches(
      async (batch) => {
        await this.#write(write, batch)
        this.#pending -= batch.length
        for (const resolve of this.#drained) resolve()
        this.#drained.clear()
      },
      { largest: LARGEST_BATCH, wholeTurns: true },
    )
  }

  async #write(write: Write, batch: readonly Waiting[]): Promise<void> {
    const newest = newestClaims(batch.map(({ ack }) => ack))
    const acks = [...newest.values()]
    try {
      const acked = await this.#persist(() => write(acks))
      const missed = acks.filter((ack) => !acked.has(ack.jobId))
      // Nothing to do may mean that the first try was written and its reply lost.
      const before = missed.length > 0 ? await this.#persist(() => this.#acked(missed)) : new Set<string>()
      for (const { ack, resolve } of batch) {
        const isWritten = acked.has(ack.jobId) || before.has(ack.jobId)
        resolve(isWritten && newest.get(ack.jobId) === ack ? 'acked' : 'lost')
      }
    } catch (error) {
      await this.#writeApart(write, batch, error)
    }
  }

  #acked(acks: readonly Ack[]): Promise<Set<string>> {
    return ackedClaims(this.#database, acks, this.#keepCompleted)
  }

  /** A batch that the database refuses is split until the culprit stands alone; it is discarded without its values. */
  async #writeApart(write: Write, batch: readonly Waiting[], error: unknown): Promise<void> {
    if (batch.length > 1 && isDataError(error)) {
      const middle = batch.length >> 1
      await this.#write(write, batch.slice(0, middle))
      await this.#write(write, batch.slice(middle))
      return
    }
    const [only] = batch
    if (only && isDataError(error) && !this.#refusals.has(only.ack)) {
      const ack = refusedAck(only.ack, error)
      this.#refusals.add(ack)
      await this.#write((acks) => this.#finishJobs(acks), [{ ...only, ack }])
      return
    }
    this.#report(error, null)
    for (const { resolve } of batch) resolve('refused')
  }

  #persist<Value>(work: () => Promise<Value>): Promise<Value> {
    return untilDone(
      () => withPartition(this.#database, work),
      (error) => !isDataError(error),
      this.#giveUp.signal,
      (error, pauseMs) => this.#report(error, pauseMs),
    )
  }

  #report(error: unknown, retryInMs: number | null): void {
    const statement = isConnectionFailure(error) ? 'ack (no connection)' : 'ack'
    this.#telemetry.emit('statement:failed', { statement, error: storedError(error), retryInMs })
  }
}

function refusedAck(ack: Ack, cause: unknown): Ack {
  const error = new TriphaseError(
    'WRITE_REFUSED',
    `The database refused what the job returned: ${cause instanceof Error ? cause.message : String(cause)}. Return something that fits into json.`,
  )
  return {
    ...ack,
    state: 'discarded',
    result: null,
    error: JSON.stringify(storedError(error)),
    attempt: null,
  }
}
