import type { Results } from './json.ts'
import { printable } from './words.ts'

/** Where a command says what it has to say: stdout is for its result, stderr for everything else. */
export class Output {
  /** One JSON value on stdout, or one on each line where something is followed. */
  readonly json: boolean
  readonly #closed = new AbortController()

  constructor(json: boolean) {
    this.json = json
    // Whoever reads is gone (`| head`): what is under way ends, and nobody is told.
    process.stdout.on('error', () => this.#closed.abort())
    process.stderr.on('error', () => {})
  }

  /** Fires when nobody reads stdout any more. */
  get closed(): AbortSignal {
    return this.#closed.signal
  }

  /** The result of the command `Name`, in the form that was asked for. */
  result<Name extends keyof Results>(value: Results[Name], lines: () => string[]): void {
    if (this.json) this.write(`${JSON.stringify(value)}\n`)
    else for (const line of lines()) this.line(line)
  }

  /** A line for people, with whatever the outside put into it made harmless. */
  line(text: string): void {
    this.write(`${printable(text)}\n`)
  }

  write(text: string): void {
    if (!this.closed.aborted) process.stdout.write(text)
  }

  /** For people, beside the result. */
  note(text: string): void {
    if (!this.json) process.stderr.write(`${printable(text)}\n`)
  }
}
