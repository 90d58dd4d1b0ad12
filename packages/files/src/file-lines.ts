import { readCsv } from './csv-lines.ts'
import { FaultList, FileFaults, UnreadableLine } from './faults.ts'
import { type FileFormat, type FormatOptions, formatOf } from './file-format.ts'
import { readJsonl } from './jsonl-lines.ts'
import { type ReadProgress, Source } from './source.ts'

/** What a file turned out to be. */
export interface FileFacts {
  readonly sha256: string
  readonly bytes: number
  /** Lines with something in them, the header row not counted. */
  readonly lines: number
  readonly bom: boolean
  readonly crlf: boolean
  /** In the order of the header row, or in which they first appear; null: more than can be columns. */
  readonly columns: readonly string[] | null
  /** Those among all names that an export might want for itself. */
  readonly reserved: readonly string[]
}

/** One line: its text as JSON, and its value. A promise holds up the next line. */
export type TakeLine = (
  line: number,
  json: string,
  record: Record<string, unknown>,
) => Promise<void> | undefined

/** How to read. */
export interface ReadOptions {
  readonly format: FileFormat
  readonly maxLineBytes: number
  readonly step: ReadProgress['step']
  readonly onProgress?: ((progress: ReadProgress) => void) | undefined
  readonly signal?: AbortSignal | undefined
}

/** Unless more is allowed. */
export const LONGEST_LINE_BYTES: number = 1024 * 1024
/** More different names than these in a JSONL file are no columns. */
const MOST_COLUMNS = 1_000
/** Names that exports give to columns of their own, numbered where they are taken. */
const RESERVED = /^(status|result|error)(_\d+)?$/

/**
 * Reads a file once: every line that can be used is taken, every other is noted.
 *
 * @throws {TriphaseError} `FILE_UNREADABLE`
 */
export async function readLines(
  path: string,
  options: ReadOptions,
  faults: FaultList,
  take: TakeLine,
): Promise<FileFacts> {
  const source = await Source.open(path)
  const names = new Names()
  let lines = 0
  const counted: TakeLine = (line, json, record) => {
    lines++
    // Told now and then: a line costs a microsecond.
    if (lines % 1_000 === 0) look(source, options)
    return take(line, json, record)
  }
  try {
    const { format, maxLineBytes } = options
    if (format.kind === 'csv') {
      const { delimiter } = format
      await readCsv(source, { delimiter, maxLineBytes }, rowTaker(names, faults, counted))
      if (names.columns.length === 0) faults.add(1, 'there is no header row')
    } else await readJsonl(source, maxLineBytes, textTaker(names, faults, counted))
  } catch (error) {
    if (!(error instanceof UnreadableLine)) throw error
    faults.stop(error)
  } finally {
    await source.close()
  }
  look(source, options)
  const { bytes, bom, breaks } = source
  const columns = names.columns.length > MOST_COLUMNS ? null : names.columns
  return { sha256: source.digest(), bytes, lines, bom, crlf: breaks.crlf, columns, reserved: names.reserved }
}

/**
 * The columns of a CSV file by its header row, without reading on; null: a JSONL file, which has none.
 *
 * @throws {TriphaseError} `FILE_UNREADABLE`, `INVALID_OPTIONS`; `FILE_FAULTS` where the header row cannot be read.
 * @example
 * const columns = await columnsOf('list.csv') // ['id', 'text']
 */
export async function columnsOf(
  file: string,
  options: FormatOptions = {},
): Promise<readonly string[] | null> {
  const format = await formatOf(file, options)
  if (format.kind === 'jsonl') return null
  const source = await Source.open(file)
  const faults = new FaultList()
  let columns: readonly string[] = []
  try {
    await readCsv(
      source,
      { delimiter: format.delimiter, maxLineBytes: LONGEST_LINE_BYTES },
      (_line, fields) => {
        columns = fields
        return 'enough'
      },
    )
  } catch (error) {
    if (!(error instanceof UnreadableLine)) throw error
    faults.stop(error)
    throw new FileFaults(file, faults)
  } finally {
    await source.close()
  }
  return columns
}

function look({ bytes, size }: Source, { step, onProgress, signal }: ReadOptions): void {
  signal?.throwIfAborted()
  onProgress?.({ step, bytes, size })
}

class Names {
  readonly columns: string[] = []
  readonly reserved: string[] = []
  readonly #known = new Set<string>()

  add(name: string): void {
    if (this.#known.has(name)) return
    const reserved = RESERVED.test(name)
    if (reserved) this.reserved.push(name)
    if (!reserved && this.columns.length > MOST_COLUMNS) return
    this.#known.add(name)
    this.columns.push(name)
  }
}

/** The first row names the columns; of the others an object is made, written as JSON in the order of the columns. */
function rowTaker(names: Names, faults: FaultList, take: TakeLine) {
  let header: readonly string[] | undefined
  let keys: string[] = []
  return (line: number, fields: string[]): Promise<void> | undefined => {
    if (!header) {
      header = fields
      for (const fault of headerFaults(fields)) faults.add(line, fault)
      for (const name of fields) names.add(name)
      keys = fields.map((name, index) => `${index === 0 ? '{' : ','}${JSON.stringify(name)}:`)
      return undefined
    }
    if (fields.length !== header.length) {
      faults.add(line, `it has ${counted(fields.length, 'field')}, the header row ${header.length}`)
      return undefined
    }
    const record: Record<string, string> = {}
    let json = ''
    for (let index = 0; index < fields.length; index++) {
      const field = fields[index] as string
      record[header[index] as string] = field
      json += keys[index] + JSON.stringify(field)
    }
    return take(line, `${json}}`, record)
  }
}

function headerFaults(names: readonly string[]): string[] {
  const unnamed = names.flatMap((name, index) => (name.trim() === '' ? [index + 1] : []))
  const twice = [
    ...new Set(names.filter((name, index) => names.indexOf(name) !== index && name.trim() !== '')),
  ]
  return [
    ...(unnamed.length > 0 ? [`the header row has no name for column ${unnamed.join(', ')}`] : []),
    ...(twice.length > 0 ? [`the header row has more than one ${twice.map(quote).join(', ')}`] : []),
    ...(names.length > MOST_COLUMNS ? [`the header row has more than ${MOST_COLUMNS} columns`] : []),
    ...(names.includes('__proto__') ? ['a column cannot be called __proto__'] : []),
  ]
}

/** The text is kept as it is: numbers of any length, the order of names. */
function textTaker(names: Names, faults: FaultList, take: TakeLine) {
  return (line: number, text: string): Promise<void> | undefined => {
    let record: unknown
    try {
      record = JSON.parse(text)
    } catch (error) {
      faults.add(line, `it is not JSON (${(error as Error).message})`)
      return undefined
    }
    if (typeof record !== 'object' || record === null || Array.isArray(record)) {
      faults.add(
        line,
        `it is ${Array.isArray(record) ? 'an array' : String(record === null ? null : typeof record)}, not an object`,
      )
      return undefined
    }
    for (const name of Object.keys(record)) names.add(name)
    return take(line, text, record as Record<string, unknown>)
  }
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}

function quote(name: string): string {
  return JSON.stringify(name)
}
