import { cancelledOnRequest, storedError } from '../errors.ts'
import { Loop } from '../loop.ts'
import { settleCancelRequests } from '../store/cancel.ts'
import type { Database } from '../store/database.ts'
import { deleteLeftovers } from '../store/leftovers.ts'
import { maintainPartitions } from '../store/partitions.ts'
import { rescueOrphans } from '../store/rescue.ts'
import type { Telemetry, TelemetryEvents } from '../telemetry.ts'

const SETTLE_MS = 30_000
const PRUNE_MS = 30 * 60_000
const POSTPONED_PRUNE_MS = 60_000

/** What the leader does: it must happen, and once is enough. All of it is harmless when two do it. */
export class Janitor {
  readonly #database: Database
  readonly #telemetry: Telemetry
  readonly #retentionMs: number
  readonly #onOrphans: (queues: string[]) => void
  readonly #loop: Loop
  #leading = false
  #pruneAt = 0

  constructor(
    database: Database,
    telemetry: Telemetry,
    retentionMs: number,
    onOrphans: (queues: string[]) => void,
  ) {
    this.#database = database
    this.#telemetry = telemetry
    this.#retentionMs = retentionMs
    this.#onOrphans = onOrphans
    this.#loop = new Loop(() => this.#pass())
  }

  get leading(): boolean {
    return this.#leading
  }

  /** Takes up or lays down the work. */
  lead(leading: boolean): void {
    if (leading === this.#leading) return
    this.#leading = leading
    if (leading) this.#loop.start()
    else void this.#loop.stop()
  }

  async stop(): Promise<void> {
    this.#leading = false
    await this.#loop.stop()
  }

  /** Makes partitions ahead, drops old ones, deletes what is left over. */
  async prune(now?: Date): Promise<TelemetryEvents['history:pruned']> {
    const { made, dropped, postponed } = await maintainPartitions(this.#database, this.#retentionMs, now)
    const orphans = await deleteLeftovers(this.#database, this.#retentionMs)
    const pruned = { partitionsMade: made, partitionsDropped: dropped, postponed, orphans }
    if (made + dropped + postponed + orphans > 0) this.#telemetry.emit('history:pruned', pruned)
    return pruned
  }

  /** Carries out what others left half done: cancel requests of jobs that went back to waiting, jobs without a process. */
  async settle(): Promise<void> {
    await settleCancelRequests(this.#database, cancelledOnRequest())
    const orphans = await rescueOrphans(this.#database)
    if (orphans.length > 0) this.#onOrphans([...new Set(orphans.map(({ queue }) => queue))])
  }

  async #pass(): Promise<number> {
    try {
      await this.settle()
      if (performance.now() >= this.#pruneAt) {
        const { postponed } = await this.prune()
        this.#pruneAt = performance.now() + (postponed > 0 ? POSTPONED_PRUNE_MS : PRUNE_MS)
      }
    } catch (error) {
      this.#telemetry.emit('statement:failed', {
        statement: 'maintenance',
        error: storedError(error),
        retryInMs: SETTLE_MS,
      })
    }
    return SETTLE_MS
  }
}
