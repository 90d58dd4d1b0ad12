import { Presets, SingleBar } from 'cli-progress'

/** How far a run is. */
export interface Counts {
  readonly total: number
  readonly done: number
  readonly failed: number
}

/** Shows how far a run is: a bar on a terminal, plain lines elsewhere. */
export interface Progress {
  update(counts: Counts): void
  /** A line of its own, above the bar. */
  say(line: string): void
  stop(): void
}

const LINE_EVERY_MS = 5_000
const WINDOW_MS = 30_000

/** A bar where `stream` is a terminal, else a line now and then. */
export function showProgress(stream: NodeJS.WriteStream): Progress {
  return stream.isTTY ? new Bar(stream) : new Lines(stream)
}

/** Images per second over the last half minute, and the time left at that rate. */
export class Rate {
  readonly #samples: { at: number; finished: number }[] = []

  /** @returns images per second, and seconds left; null while nothing is known. */
  update(counts: Counts, now = performance.now()): { rate: number | null; secondsLeft: number | null } {
    const finished = counts.done + counts.failed
    this.#samples.push({ at: now, finished })
    while (this.#samples.length > 2 && now - (this.#samples[0] as { at: number }).at > WINDOW_MS)
      this.#samples.shift()
    const first = this.#samples[0] as { at: number; finished: number }
    const seconds = (now - first.at) / 1_000
    if (seconds <= 0 || finished === first.finished) return { rate: null, secondsLeft: null }
    const rate = (finished - first.finished) / seconds
    return { rate, secondsLeft: (counts.total - finished) / rate }
  }
}

class Bar implements Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #rate = new Rate()
  readonly #bar: SingleBar
  #started = false

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
    this.#bar = new SingleBar(
      {
        stream,
        format: '{bar} {value}/{total} images  {failures}{speed}  {left}',
        hideCursor: true,
        clearOnComplete: false,
        gracefulExit: false,
      },
      Presets.shades_classic,
    )
  }

  update(counts: Counts): void {
    const { rate, secondsLeft } = this.#rate.update(counts)
    const words = {
      failures: counts.failed > 0 ? `${counts.failed} failed  ` : '',
      speed: rate === null ? '' : `${rate.toFixed(1)}/s`,
      left: secondsLeft === null ? '' : `${inWords(secondsLeft)} left`,
    }
    if (!this.#started) this.#bar.start(counts.total, 0, words)
    this.#started = true
    this.#bar.setTotal(counts.total)
    this.#bar.update(counts.done + counts.failed, words)
  }

  say(line: string): void {
    if (this.#started) this.#stream.write('\r\u001b[K')
    this.#stream.write(`${line}\n`)
  }

  stop(): void {
    this.#bar.stop()
  }
}

class Lines implements Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #rate = new Rate()
  #lastLine = 0
  #lastText = ''

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  update(counts: Counts): void {
    const { rate, secondsLeft } = this.#rate.update(counts)
    const finished = counts.done + counts.failed
    const now = performance.now()
    if (finished < counts.total && now - this.#lastLine < LINE_EVERY_MS) return
    const parts = [
      `${finished} of ${counts.total} images`,
      ...(counts.failed > 0 ? [`${counts.failed} failed`] : []),
      ...(rate === null ? [] : [`${rate.toFixed(1)} a second`]),
      ...(secondsLeft === null || finished === counts.total ? [] : [`${inWords(secondsLeft)} left`]),
    ]
    const text = parts.join(', ')
    if (text === this.#lastText) return
    this.#lastLine = now
    this.#lastText = text
    this.say(text)
  }

  say(line: string): void {
    this.#stream.write(`${line}\n`)
  }

  stop(): void {}
}

function inWords(seconds: number): string {
  const whole = Math.ceil(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3_600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3_600)} h ${Math.floor((whole % 3_600) / 60)} min`
}
