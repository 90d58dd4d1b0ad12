import {
  beginRun,
  completeRun,
  endRun,
  feedRun,
  findRun,
  keepSamples,
  nextPass,
  type RunRow,
  revivePages,
} from '../store/sweep-run.ts'
import { complete, type ExecutionContext, type Outcome, snooze } from '../task.ts'
import { mayPass } from './marker.ts'
import type { RecordTable, RunOnApplication } from './record-table.ts'
import { ARROWS } from './states.ts'
import type { SweepSettings } from './sweep.ts'

export interface StewardParts {
  settings: SweepSettings
  table: RecordTable
  context: ExecutionContext<unknown>
  application: RunOnApplication
  runId: string
}

/**
 * How long it sleeps when there is nothing to do: about as long as a page takes. A page that ends wakes it, but not while
 * it is looking.
 */
const SHORTEST_SLEEP_MS = 100
const LONGEST_SLEEP_MS = 2_000
const EARLIER_MS = 500
/** Page jobs kept ahead: enough for all processes, few enough to be nothing. */
const FEWEST_AHEAD = 2
const MOST_AHEAD = 16
/** Records a page, where the sweep does not say: about what is done in this time. */
const PAGE_MS = 2_000
const SMALLEST_PAGE = 500
const LARGEST_PAGE = 10_000
/** Most keys that are read to find the ends of pages. */
const MOST_READ = 20_000
/** More pending rows than this, by the planner's estimate, are not counted one by one. */
const COUNTED = 2_000_000

const SAMPLE_MS = 2_000
const SAMPLES = 31

/** What keeps a run going: one short look at it, again and again, until the run is over. */
export class Steward {
  readonly #parts: StewardParts

  constructor(parts: StewardParts) {
    this.#parts = parts
  }

  async tend(): Promise<Outcome> {
    const { context, runId, settings } = this.#parts
    const run = await findRun(context.engine, runId)
    // Another steward took its place, or there is nothing to drive: resuming writes a new one.
    if (!run || run.stewardJob !== context.claim.id) return complete()
    if (run.state !== 'planned' && run.state !== 'running') return complete()
    if (run.state === 'planned') {
      // Records that a cancelled run is still calling are pending, and would be called again.
      if (run.earlierAtWork) return snooze(EARLIER_MS)
      await beginRun(context.engine, runId, await this.#total())
      return snooze(0)
    }
    const revived = await revivePages(context.engine, runId, settings.priority)
    if (revived > 0) context.announce(run.queue)
    await this.#sample(run)
    return this.#advance(run)
  }

  /** Feeds, goes on to the next pass, or completes the run; whatever another has done meanwhile is left alone. */
  async #advance(run: RunRow): Promise<Outcome> {
    const { engine } = this.#parts.context
    if (!run.fed) return this.#feed(run)
    if (run.pages > 0) return snooze(this.#sleepMs(run))
    if (run.passPages > 0) {
      await nextPass(engine, run.id, run.feedNo)
      return snooze(0)
    }
    const { onDone, priority } = this.#parts.settings
    const completed = await completeRun(engine, run, onDone ? { priority, maxAttempts: 10 } : null)
    if (!completed) return snooze(0)
    this.#parts.context.announce(run.queue)
    return complete()
  }

  async #feed(run: RunRow): Promise<Outcome> {
    const { context, settings, table, application } = this.#parts
    const wanted = Math.min(MOST_AHEAD, Math.max(FEWEST_AHEAD, run.concurrency + 1)) - run.undrained
    if (wanted <= 0) return snooze(this.#sleepMs(run))
    const pageSize = this.#pageSize(run)
    const ahead = Math.min(wanted, Math.max(1, Math.floor(MOST_READ / pageSize)))
    const pages = await this.#persist(() => table.boundaries(application, run.cursor, ahead, pageSize))
    const fed = pages.length < ahead
    const written = await feedRun(context.engine, run, pages, { fed, priority: settings.priority })
    if (written && pages.length > 0) context.announce(run.queue)
    // The end of the table, or a page fewer than wanted: what follows is decided by a fresh look.
    return snooze(written && pages.length > 0 ? this.#sleepMs(run) : 0)
  }

  #sleepMs(run: RunRow): number {
    const perMs = recordsPerMs(run)
    const pageMs = perMs > 0 ? this.#pageSize(run) / perMs : LONGEST_SLEEP_MS
    return Math.round(Math.min(LONGEST_SLEEP_MS, Math.max(SHORTEST_SLEEP_MS, pageMs)))
  }

  /** A page is a job, with claim and ack: where records are quick it has more of them. */
  #pageSize(run: RunRow): number {
    const { pageSize } = this.#parts.settings
    return (
      pageSize ?? Math.round(Math.min(LARGEST_PAGE, Math.max(SMALLEST_PAGE, PAGE_MS * recordsPerMs(run))))
    )
  }

  /** Pending records; counted where that is quick, else as many as the planner takes them to be. */
  async #total(): Promise<{ count: number; estimated: boolean }> {
    const { table, application } = this.#parts
    const estimate = await this.#persist(() => table.estimate(application))
    if (estimate > COUNTED) return { count: estimate, estimated: true }
    const count = () => table.query<{ count: string }>(application, 'pendingCount', [])
    try {
      const [row] = await this.#persist(count, (error) => mayPass(error) && !isTooSlow(error))
      return { count: Number(row?.count ?? 0), estimated: false }
    } catch (error) {
      // It would be as slow next time, and the run would never begin.
      if (isTooSlow(error)) return { count: estimate, estimated: true }
      throw error
    }
  }

  async #sample(run: RunRow): Promise<void> {
    const { at = 0 } = run.samples.at(-1) ?? {}
    if (run.nowMs - at < SAMPLE_MS) return
    const sample = { at: Math.round(run.nowMs), settled: run.done + run.errors }
    await keepSamples(this.#parts.context.engine, run.id, [...run.samples, sample].slice(-SAMPLES))
  }

  #persist<Value>(work: () => Promise<Value>, again: (error: unknown) => boolean = mayPass): Promise<Value> {
    const { context, settings } = this.#parts
    return context.persist(`steward of sweep ${settings.name}`, work, again)
  }
}

/** The application's role has a statement_timeout. */
function isTooSlow(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '57014'
}

function recordsPerMs(run: RunRow): number {
  // Of two, the last may be of this very moment.
  const { at, settled } = run.samples.at(-2) ??
    run.samples.at(-1) ?? {
      at: run.startedAt?.getTime() ?? run.nowMs,
      settled: 0,
    }
  return (run.done + run.errors - settled) / Math.max(1, run.nowMs - at)
}

/** Ends a run that cannot go on, whatever record it is at. */
export async function failRun(parts: StewardParts, error: unknown): Promise<void> {
  const reason = error instanceof Error ? error.message : String(error)
  await endRun(parts.context.engine, parts.runId, ARROWS.fail.from, ARROWS.fail.to, reason.slice(0, 2_000))
}
