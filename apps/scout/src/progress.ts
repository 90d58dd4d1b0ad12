import { firstPart } from './terminal.ts'
import { counted, inWords } from './words.ts'

/** How far a run is. */
export interface Counts {
  readonly total: number
  readonly completed: number
  readonly failed: number
  /** Of the completed, those that were so before this run. */
  readonly known: number
}

/** Shows how far a run is: a bar on a terminal, plain lines elsewhere. */
export interface Progress {
  update(counts: Counts): void
  /** A line of its own, above the bar. */
  say(line: string): void
  /** Leaves the last state as it is. Nothing is shown after that but lines. */
  stop(): void
}

const LINE_EVERY_MS = 5_000
const WINDOW_MS = 30_000
// Less than that says nothing yet.
const SHORTEST_WINDOW_MS = 1_000
const BAR_WIDTH = 30
const NARROWEST_BAR = 8

/** A bar where `stream` is a terminal, else a line now and then. @param noun what is counted. */
export function showProgress(stream: NodeJS.WriteStream, noun = 'image'): Progress {
  return stream.isTTY ? new Bar(stream) : new Lines(stream, noun)
}

/** Images per second over the last half minute, and the time left at that rate. */
export class Rate {
  readonly #samples: { at: number; finished: number }[] = []

  /** @returns images per second, and seconds left; null while nothing is known, or when nothing is left. */
  update(
    { total, completed, failed, known }: Counts,
    now: number = performance.now(),
  ): { rate: number | null; secondsLeft: number | null } {
    const finished = completed + failed - known
    const left = total - completed - failed
    const samples = this.#samples
    samples.push({ at: now, finished })
    while (samples.length > 2 && now - samples[0]!.at > WINDOW_MS) samples.shift()
    const first = samples[0]!
    const elapsedMs = now - first.at
    if (elapsedMs < SHORTEST_WINDOW_MS || finished <= first.finished) return { rate: null, secondsLeft: null }
    const rate = (1_000 * (finished - first.finished)) / elapsedMs
    return { rate, secondsLeft: left > 0 ? left / rate : null }
  }
}

/**
 * The last line of a terminal, drawn over itself. It changes no state of the terminal (cursor, wrapping), so that a
 * process that is killed leaves a terminal that works.
 */
class Bar implements Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #rate = new Rate()
  #line = ''

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  update(counts: Counts): void {
    const line = barLine(counts, this.#rate.update(counts), this.#stream.columns || 80)
    if (line === this.#line) return
    this.#line = line
    this.#stream.write(`\r${line}\u001b[K`)
  }

  say(line: string): void {
    this.#stream.write(this.#line === '' ? `${line}\n` : `\r\u001b[K${line}\n${this.#line}`)
  }

  stop(): void {
    if (this.#line !== '') this.#stream.write('\n')
    this.#line = ''
  }
}

/** The bar and its words, as many of them as fit; the last column stays free, where some terminals wrap. */
export function barLine(
  counts: Counts,
  { rate, secondsLeft }: ReturnType<Rate['update']>,
  columns: number,
): string {
  const { total, completed, failed } = counts
  const finished = completed + failed
  const words = [
    `${finished}/${total}`,
    failed > 0 ? `${failed} failed` : '',
    rate === null ? '' : `${rate.toFixed(1)}/s`,
    secondsLeft === null ? '' : `${inWords(secondsLeft)} left`,
  ]
    .filter((word) => word !== '')
    .join('  ')
  const room = Math.min(BAR_WIDTH, columns - 1 - words.length - 2)
  if (room < NARROWEST_BAR) return firstPart(words, columns - 1)
  const filled = total === 0 ? room : Math.floor((room * finished) / total)
  return `${'█'.repeat(filled)}${'░'.repeat(room - filled)}  ${words}`
}

class Lines implements Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #rate = new Rate()
  #lastLine = performance.now()
  #told = ''
  readonly #noun: string

  constructor(stream: NodeJS.WriteStream, noun: string) {
    this.#stream = stream
    this.#noun = noun
  }

  update(counts: Counts): void {
    const { total, completed, failed } = counts
    const { rate, secondsLeft } = this.#rate.update(counts)
    const finished = completed + failed
    const now = performance.now()
    if (finished < total && now - this.#lastLine < LINE_EVERY_MS) return
    const state = `${finished} ${failed} ${total}`
    if (state === this.#told) return
    this.#lastLine = now
    this.#told = state
    const text = [
      `${finished} of ${counted(total, this.#noun)}`,
      ...(failed > 0 ? [`${failed} failed`] : []),
      ...(rate === null ? [] : [`${rate.toFixed(1)} a second`]),
      ...(secondsLeft === null ? [] : [`${inWords(secondsLeft)} left`]),
    ].join(', ')
    this.say(text)
  }

  say(line: string): void {
    this.#stream.write(`${line}\n`)
  }

  stop(): void {}
}
