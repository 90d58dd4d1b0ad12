import { TriphaseError } from 'triphase'

/** What is wrong with one line of a file. */
export interface LineFault {
  /** As an editor counts; the header row of a CSV file is line 1. */
  readonly line: number
  readonly message: string
}

/**
 * A file that cannot be loaded as it is (`FILE_FAULTS`). Nothing of it was loaded.
 *
 * @example
 * try { await loadFile({ engine, pool }, sweep, 'list.csv') } catch (error) {
 *   if (error instanceof FileFaults) for (const { line, message } of error.faults) console.error(`${line}: ${message}`)
 * }
 */
export class FileFaults extends TriphaseError {
  /** The first hundred, in the order of their lines. */
  readonly faults: readonly LineFault[]
  /** How many there are in all, in the part of the file that could be read. */
  readonly count: number
  /** The line behind which nothing was read; null: the file was read to its end. */
  readonly stoppedAt: number | null

  /** @internal */
  constructor(file: string, found: FoundFaults) {
    const { faults, count, stoppedAt } = found
    const lines = faults.slice(0, NAMED).map(({ line, message }) => `line ${line}: ${message}`)
    const more = count > lines.length ? [`and ${count - lines.length} more`] : []
    const rest = stoppedAt === null ? [] : [`what follows line ${stoppedAt} was not read`]
    super(
      'FILE_FAULTS',
      `${file} cannot be loaded, and nothing of it was: ${[...lines, ...more, ...rest].join('; ')}. Correct it and load it again.`,
    )
    this.name = 'FileFaults'
    this.faults = faults
    this.count = count
    this.stoppedAt = stoppedAt
  }
}

interface FoundFaults {
  readonly faults: readonly LineFault[]
  readonly count: number
  readonly stoppedAt: number | null
}

/** In an error's message; all that are kept are in `faults`. */
const NAMED = 10
const KEPT = 100
const LONGEST_MESSAGE = 500

/** The faults of a file while it is read: the first hundred, and how many. */
export class FaultList implements FoundFaults {
  readonly faults: LineFault[] = []
  count = 0
  stoppedAt: number | null = null

  add(line: number, message: string): void {
    this.count++
    if (this.faults.length < KEPT) this.faults.push({ line, message: message.slice(0, LONGEST_MESSAGE) })
  }

  /** Nothing behind this fault can be read. */
  stop({ line, message }: UnreadableLine): void {
    this.add(line, message)
    this.stoppedAt = line
  }
}

/** Thrown while a file is read: behind this line there is nothing to be made of it. */
export class UnreadableLine extends Error {
  readonly line: number

  constructor(line: number, message: string) {
    super(message)
    this.name = 'UnreadableLine'
    this.line = line
  }
}
