import { EXIT } from './exit-codes.ts'
import type { Results } from './json.ts'
import { messageOf, Problem } from './problem.ts'
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

/** What was written is out, or nobody wants it. */
export async function flushed(stream: NodeJS.WriteStream): Promise<void> {
  if (stream.destroyed || !stream.writable) return
  await new Promise<void>((resolve) => {
    stream.once('close', resolve).once('error', () => resolve())
    stream.write('', () => resolve())
  })
}

/**
 * Listens to what becomes of stdout.
 *
 * @returns waits until all is out; throws `OUTPUT_FAILED` when it could not be written, as on a disk that is full. That
 *   nobody reads it is no error.
 */
export function watchStdout(): () => Promise<void> {
  // Node forgets an error of its standard streams.
  let fault: NodeJS.ErrnoException | undefined
  process.stdout.on('error', (error) => {
    fault ??= error
  })
  return async () => {
    await flushed(process.stdout)
    // It is told of after the write that failed.
    await new Promise(setImmediate)
    if (!fault || fault.code === 'EPIPE') return
    throw new Problem(
      EXIT.unexpected,
      'OUTPUT_FAILED',
      `What this command says on stdout cannot be written: ${messageOf(fault)}. Free space, or send it elsewhere, and give the command again.`,
      { cause: fault },
    )
  }
}
