import { type BeatAnswer, type BeatReport, beatPages } from '../store/sweep-page.ts'
import type { EngineStatements } from '../task.ts'
import { Gatherer } from './gatherer.ts'

/** Every so often pages say how they are doing, and learn what they may do. */
export const BEAT_MS = 1_000

/** A page that this process is working on. */
export interface PageAtWork {
  /** It has a use for no more slots than it uses: the next page may have the others. */
  readonly givesWay: boolean
  beat(): Promise<void>
}

/** Runs that are worked on, by the engine that does: a process may have several. */
const atWork = new WeakMap<EngineStatements, Map<string, RunAtWork>>()

/**
 * The pages of one run that one engine works on, in the order in which they came. They take turns: a page asks for
 * slots when those before it have begun all their records, and what a page at its end gives back is the next one's in the
 * same statement. So marks gather in one page: four pages at a time with a quarter of the slots each wrote a third as many
 * records a second (50 slots, calls that take no time).
 */
export class RunAtWork {
  readonly #pages = new Set<PageAtWork>()
  readonly #beats: Gatherer<BeatReport, BeatAnswer>
  readonly #timer: NodeJS.Timeout
  readonly #forget: () => void

  private constructor(engine: EngineStatements, runId: string, forget: () => void) {
    this.#beats = new Gatherer((reports) => beatPages(engine, runId, reports))
    this.#timer = setInterval(() => this.beatAll(), BEAT_MS)
    this.#forget = forget
  }

  /** The run that a page begins to work for. */
  static enter(engine: EngineStatements, runId: string, page: PageAtWork): RunAtWork {
    const runs = atWork.get(engine) ?? new Map<string, RunAtWork>()
    atWork.set(engine, runs)
    const run = runs.get(runId) ?? new RunAtWork(engine, runId, () => runs.delete(runId))
    runs.set(runId, run)
    run.#pages.add(page)
    return run
  }

  /** The page has ended, and its slots are free. */
  leave(page: PageAtWork): void {
    this.#pages.delete(page)
    this.beatAll()
    if (this.#pages.size > 0) return
    clearInterval(this.#timer)
    this.#forget()
  }

  /** How many pages have to end before this one has its turn; 0: it has. */
  turnIn(page: PageAtWork): number {
    let before = 0
    for (const other of this.#pages) {
      if (other === page) break
      if (!other.givesWay) before++
    }
    return before
  }

  /** Whether another page of the run is here. */
  get hasOthers(): boolean {
    return this.#pages.size > 1
  }

  /** All pages in one statement, the first to come first. */
  beatAll(): void {
    for (const page of this.#pages) void page.beat()
  }

  tell(report: BeatReport): Promise<BeatAnswer> {
    return this.#beats.add(report)
  }
}
