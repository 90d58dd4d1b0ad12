import { ANALYSIS_QUEUE } from './analyse-capture.ts'
import { announceAnalyses } from './announce.ts'
import type { Backend } from './backend.ts'
import { captureResults, captureStates, findOrCreateCamera } from './captures.ts'
import { ConnectionWatch } from './connections.ts'
import { type WhenReachable, whileAway } from './database.ts'
import { follow } from './follow.ts'
import type { PathProblem } from './image-folder.ts'
import type { ImageSource } from './ingest.ts'
import { ingestAll } from './ingest-all.ts'
import type { Progress } from './progress.ts'
import { connectionLines, failureLines, imageTable, summaryLine } from './report.ts'
import { Tally } from './tally.ts'
import { printable } from './terminal.ts'
import { tellTroubles } from './troubles.ts'
import { counted } from './words.ts'

/** The images of a run, what they are called together, and what could not be looked at. */
export interface Images {
  readonly name: string
  readonly sources: readonly ImageSource[]
  readonly problems: readonly PathProblem[]
}

/** What a run works with. */
export interface RunParts {
  readonly backend: Backend
  readonly images: Images
  readonly progress: Progress
  /** Ends the run. */
  readonly signal: AbortSignal
}

const STOP_GRACE_MS = 10_000
const OUTAGE_MS = 600_000
const PLAIN_WIDTH = 120
const ROWS_ON_A_TERMINAL = 100

const PROFILE = {
  prompt: 'List what can be seen in this image: people, animals, vehicles, objects, and text.',
}

/** One run over a folder's images: ingests them, follows their analyses, reports. */
export class Run {
  readonly #parts: RunParts
  readonly #tally: Tally
  readonly #connections: ConnectionWatch
  readonly #whenReachable: WhenReachable
  readonly #startedAt = performance.now()

  constructor(parts: RunParts) {
    this.#parts = parts
    const { backend, images, signal } = parts
    const tell = (line: string) => this.#say(line)
    this.#tally = new Tally(images.sources.length)
    this.#connections = new ConnectionWatch(backend)
    this.#whenReachable = whileAway({ tell, revive: backend.reviveDatabase, signal, atMostMs: OUTAGE_MS })
    announceAnalyses(backend)
    tellTroubles(backend, tell)
  }

  /** Resolves when every image is through, whichever process analysed it; rejects with the signal's reason. */
  async work(): Promise<void> {
    const { backend, images, progress, signal } = this.#parts
    this.#say(
      `${counted(images.sources.length, 'image')} from ${printable(images.name)}, model ${backend.model.name}, database ${backend.databaseDescription}`,
    )
    await backend.start()
    const camera = await this.#whenReachable(() => findOrCreateCamera(backend.pool, images.name, PROFILE))
    await this.#tellLeftovers()
    const ending = new AbortController()
    const both = AbortSignal.any([signal, ending.signal])
    const ingesting = ingestAll(backend, camera, images.sources, this.#tally, both, this.#whenReachable)
    // Met where it is awaited; until then the run follows what was ingested before.
    ingesting.catch(() => {})
    try {
      await follow(backend, this.#tally, progress, signal, this.#whenReachable)
    } finally {
      ending.abort()
      await ingesting
    }
  }

  /** @returns whether every image is analysed. */
  async report(out: NodeJS.WriteStream): Promise<boolean> {
    const { backend, images, progress } = this.#parts
    const { captures, counts } = this.#tally
    progress.stop()
    const results = await this.#whenReachable(() => captureResults(backend.pool, captures))
    const named = results
      .map((result) => ({ ...result, names: this.#tally.namesOf(result.captureId) }))
      .sort((a, b) => (a.names[0]! < b.names[0]! ? -1 : 1))
    const seconds = (performance.now() - this.#startedAt) / 1_000
    const columns = out.columns || PLAIN_WIDTH
    this.#say('', imageTable(named, { columns, rows: out.isTTY ? ROWS_ON_A_TERMINAL : named.length }))
    this.#say(summaryLine(counts, this.#tally.unread, seconds), ...this.#aboutModel())
    // The last job's end is reported after its commit can be seen.
    await backend.engine.stop({ graceMs: STOP_GRACE_MS })
    this.#say(...connectionLines(this.#connections.report()))
    const failures = failureLines(named, [...images.problems, ...this.#tally.refused], this.#tally.stopped)
    this.#say(...failures)
    return failures.length === 0
  }

  /** Ends gracefully what runs, after the signal. */
  async stop(): Promise<void> {
    const { backend, progress } = this.#parts
    progress.stop()
    this.#say(
      `Stopping: calls under way get ${STOP_GRACE_MS / 1_000} s to finish. Ctrl-C again ends at once.`,
    )
    await backend.engine.stop({ graceMs: STOP_GRACE_MS })
    const states = await captureStates(backend.pool, this.#tally.open).catch(() => [])
    for (const { captureId, status } of states)
      if (status !== 'processing') this.#tally.settle(captureId, status)
    const { completed, total } = this.#tally.counts
    this.#say(
      `Stopped with ${completed} of ${counted(total, 'image')} analysed. Run the same command again ${completed < total ? 'for the rest' : 'to see the results'}.`,
    )
  }

  async #tellLeftovers(): Promise<void> {
    const live = await this.#whenReachable(() => this.#parts.backend.engine.counts())
    const waiting = live
      .filter(({ queue }) => queue === ANALYSIS_QUEUE)
      .reduce((sum, { count }) => sum + count, 0)
    if (waiting > 0) this.#say(`Unfinished from before: ${counted(waiting, 'job')}, which will be done, too.`)
  }

  #aboutModel(): string[] {
    if (!this.#parts.backend.model.local) return []
    return ['Seen by the local detector, which knows 80 kinds of things. For more, set SCOUT_MODEL.']
  }

  #say(...lines: string[]): void {
    for (const line of lines) this.#parts.progress.say(line)
  }
}
