import { createLogUpdate } from 'log-update'
import type { SweepStatus } from 'triphase'
import type { Results } from './json.ts'
import type { Output } from './output.ts'
import type { Explanation } from './problem.ts'
import { countsText, paceParts, stateLine } from './status-text.ts'
import { grouped, printable } from './words.ts'

/** How a run is shown while it is followed. */
export type ProgressForm = 'bar' | 'lines' | 'none'
export const PROGRESS_FORMS: readonly ProgressForm[] = ['bar', 'lines', 'none']

/** Shows how a run goes on: every status that is read goes through it. */
export interface Progress {
  update(status: SweepStatus): void
  /** Writes to stderr what does not belong to it, without spoiling it. */
  beside(text: string): void
  /** The same, of what is for people alone. */
  note(text: string): void
  /** The database is away, and is waited for. */
  waiting(away: Explanation): void
  /** Leaves the last state as it is. */
  stop(): void
}

const LINE_EVERY_MS = 5_000
const BAR_WIDTH = 30

/** A bar on a terminal, a line now and then elsewhere, and a JSON line for each change with `--json`. */
export function showProgress(name: string, output: Output, form?: ProgressForm): Progress {
  if (output.json) return new JsonLines(name, output)
  // A terminal without a width (a pseudo terminal that nobody looks at) has no place for a bar.
  const chosen = form ?? (process.stdout.isTTY && process.stdout.columns > 0 ? 'bar' : 'lines')
  if (chosen === 'none')
    return {
      update: () => {},
      beside: toStderr,
      note: toStderr,
      waiting: (away) => toStderr(inWords(away)),
      stop: () => {},
    }
  return chosen === 'bar' ? new Bar(name) : new Lines(name, output)
}

class JsonLines implements Progress {
  readonly #name: string
  readonly #output: Output
  #last = ''

  constructor(name: string, output: Output) {
    this.#name = name
    this.#output = output
  }

  update(status: SweepStatus): void {
    // How long it has run changes by itself and is no news.
    const news = JSON.stringify({ ...status, activeMs: 0, etaMs: 0, slowMs: 0, recordsPerSecond: 0 })
    if (news === this.#last) return
    this.#last = news
    this.#output.result<'status'>({ sweep: this.#name, ...status }, () => [])
  }

  beside(text: string): void {
    toStderr(text)
  }

  note(): void {}

  waiting({ code, message }: Explanation): void {
    const error: Results['error'] = { error: { code, message } }
    toStderr(JSON.stringify(error))
  }

  stop(): void {}
}

class Lines implements Progress {
  readonly #name: string
  readonly #output: Output
  #lastAt = Number.NEGATIVE_INFINITY
  #state = ''
  #told = ''

  constructor(name: string, output: Output) {
    this.#name = name
    this.#output = output
  }

  update(status: SweepStatus): void {
    const now = performance.now()
    const state = stateLine(this.#name, status)
    if (state === this.#state && now - this.#lastAt < LINE_EVERY_MS) return
    const counts = countsText(status)
    if (`${state} ${counts}` === this.#told) return
    this.#lastAt = now
    this.#state = state
    this.#told = `${state} ${counts}`
    this.#output.line([`${state}: ${counts}`, ...paceParts(status)].join(', '))
  }

  beside(text: string): void {
    toStderr(text)
  }

  note(text: string): void {
    this.beside(text)
  }

  waiting(away: Explanation): void {
    this.beside(inWords(away))
  }

  stop(): void {}
}

/** The last lines of a terminal, drawn over themselves. The cursor stays, so that kill -9 leaves a terminal that works. */
class Bar implements Progress {
  readonly #name: string
  readonly #draw = createLogUpdate(process.stdout, { showCursor: true })
  #text = ''

  constructor(name: string) {
    this.#name = name
  }

  update(status: SweepStatus): void {
    this.#text = barLines(this.#name, status).map(printable).join('\n')
    this.#draw(this.#text)
  }

  beside(text: string): void {
    this.#draw.clear()
    toStderr(text)
    if (this.#text !== '') this.#draw(this.#text)
  }

  note(text: string): void {
    this.beside(text)
  }

  waiting(away: Explanation): void {
    this.beside(inWords(away))
  }

  stop(): void {
    this.#draw.done()
  }
}

/** A bar with how far it is, and below it the rest. */
function barLines(name: string, status: SweepStatus): [string, string] {
  const { total, done, errors, slots } = status
  const share = total === null ? 0 : total === 0 ? 1 : (done + errors) / total
  const filled = Math.floor(share * BAR_WIDTH)
  const bar = `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`
  const percent = total === null ? '' : `${Math.floor(share * 100)}%  `
  return [
    `${bar}  ${percent}${countsText(status)}`,
    [stateLine(name, status), ...paceParts(status), `${grouped(slots)} under way`].join('  '),
  ]
}

function inWords({ message }: Explanation): string {
  return `${message} Waiting for it.`
}

function toStderr(text: string): void {
  process.stderr.write(text.endsWith('\n') ? text : `${text}\n`)
}
