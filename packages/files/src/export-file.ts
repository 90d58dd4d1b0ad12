import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { parse } from 'csv-parse'
import { stringify } from 'csv-stringify'
import type pg from 'pg'
import { to as copyTo } from 'pg-copy-streams'
import { TriphaseError } from 'triphase'
import { cellOf, withoutFormula } from './cells.ts'
import { withConnection } from './connection.ts'
import { type OwnNames, ownNames } from './export-columns.ts'
import { type FileFormat, type FormatOptions, kindOf } from './file-format.ts'
import type { FileSettings, FileSweep } from './file-sweep.ts'
import { findNote, type TableNote } from './loaded-file.ts'
import { writeWhole } from './output-file.ts'
import { exportLines, holdTable, SET_LIMITS, tableName } from './store/line-table.ts'

export interface ExportOptions extends FormatOptions {
  /**
   * Of a CSV file: whether results and errors that a spreadsheet would take for a formula get an apostrophe before them.
   * The file's own columns are never touched. Default true.
   */
  escapeFormulas?: boolean
  /** Called every thousand lines with how many are written. */
  onProgress?: (progress: { lines: number; total: number }) => void
  signal?: AbortSignal
}

/** What was exported. */
export interface ExportCounts {
  readonly lines: number
  readonly done: number
  readonly errors: number
  readonly pending: number
}

/**
 * Writes each line of a sweep's file again, in its order: the line's own columns first, then `status`, `result` (or the
 * sweep's `resultColumns`) and `error`. At any time, also while a run works: as of one moment. A file is replaced when the
 * new one is complete, never half.
 *
 * @param target a file, whose name says which format it gets (default: that of the loaded file), or a stream, which is ended.
 * @throws {TriphaseError} `NO_FILE`: none is loaded; `FILE_UNWRITABLE`, `SWEEP_TABLE`, `CONNECTION_FAILED`, `NO_PERMISSION`,
 *   `INVALID_OPTIONS`.
 * @example
 * const { lines, errors } = await exportFile({ pool }, classify, 'list.results.csv')
 */
export async function exportFile(
  { pool }: { readonly pool: pg.Pool },
  sweep: FileSweep,
  target: string | Writable,
  options: ExportOptions = {},
): Promise<ExportCounts> {
  const kind = kindOf(typeof target === 'string' ? target : '', options)
  const write = (stream: Writable) =>
    withConnection(pool, options.signal, async (client) => {
      await client.query('BEGIN READ ONLY')
      await client.query(SET_LIMITS)
      const note = await noteOf(client, sweep)
      const format = formatFor(note, kind, options, typeof target === 'string' ? target : '')
      return copyLines(client, sweep.file, note, format, stream, options)
    })
  return typeof target === 'string' ? writeWhole(target, write) : write(target)
}

/** Held, so that nobody puts another file in its place meanwhile. */
async function noteOf(client: pg.Client, sweep: FileSweep): Promise<TableNote> {
  const { schema, table } = sweep.file
  if (await findNote(client, sweep.file)) {
    await client.query(holdTable(tableName(schema, table)))
    const note = await findNote(client, sweep.file)
    if (note) return note
  }
  throw new TriphaseError(
    'NO_FILE',
    `No file is loaded for sweep ${sweep.name} (there is no table ${tableName(schema, table)}). Load one with loadFile first.`,
  )
}

function formatFor(
  note: TableNote,
  kind: FileFormat['kind'] | null,
  { delimiter }: FormatOptions,
  target: string,
): FileFormat {
  if ((kind ?? note.format.kind) === 'jsonl') return { kind: 'jsonl' }
  if (note.columns === null) {
    throw new TriphaseError(
      'INVALID_OPTIONS',
      `${note.name} has more than a thousand different names, too many for the columns of a CSV file. Export it as JSONL.`,
    )
  }
  const usual = /\.tsv$/i.test(target) ? '\t' : note.format.kind === 'csv' ? note.format.delimiter : ','
  return { kind: 'csv', delimiter: delimiter ?? usual }
}

/** A line as the database gives it: JSON as text, nothing for null. */
type Row = [line: string, record: string, status: 'pending' | 'done' | 'error', result: string, error: string]

async function copyLines(
  client: pg.Client,
  file: FileSettings,
  note: TableNote,
  format: FileFormat,
  stream: Writable,
  { onProgress, signal, escapeFormulas = true }: ExportOptions,
): Promise<ExportCounts> {
  const counts = { lines: 0, done: 0, errors: 0, pending: 0 }
  const count = ([, , status]: Row) => {
    counts.lines++
    counts[status === 'error' ? 'errors' : status]++
    if (counts.lines % 1_000 === 0) onProgress?.({ lines: counts.lines, total: note.lines })
  }
  const rows = client.query(copyTo(exportLines(tableName(file.schema, file.table))))
  const reader = parse({ record_delimiter: '\n' })
  const options = signal ? { signal } : {}
  if (format.kind === 'jsonl') {
    const names = ownNames(note, [])
    const text = async function* (all: AsyncIterable<Row>) {
      for await (const row of all) {
        count(row)
        yield jsonLine(row, names)
      }
    }
    await pipeline(rows, reader, text, stream, options)
  } else {
    const fields = file.resultColumns ?? []
    const names = ownNames(note, fields)
    const foreign = escapeFormulas ? withoutFormula : (cell: string) => cell
    const cells = async function* (all: AsyncIterable<Row>) {
      yield header(note.columns ?? [], names)
      for await (const row of all) {
        count(row)
        yield csvRow(row, note.columns ?? [], fields, foreign)
      }
    }
    const writer = stringify({
      delimiter: format.delimiter,
      record_delimiter: note.crlf ? '\r\n' : '\n',
      bom: note.bom,
      quoted_match: /[\r\n]/,
    })
    await pipeline(rows, reader, cells, writer, stream, options)
  }
  onProgress?.({ lines: counts.lines, total: note.lines })
  return counts
}

function header(columns: readonly string[], names: OwnNames): string[] {
  return [...columns, names.status, ...(names.fields.length > 0 ? names.fields : [names.result]), names.error]
}

function csvRow(
  [, json, status, result, error]: Row,
  columns: readonly string[],
  fields: readonly string[],
  foreign: (cell: string) => string,
): string[] {
  const record = JSON.parse(json) as Record<string, unknown>
  const value: unknown = result === '' ? null : JSON.parse(result)
  const parts = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  const results = fields.length > 0 ? fields.map((name) => parts[name]) : [value]
  return [
    ...columns.map((name) => cellOf(Object.hasOwn(record, name) ? record[name] : null)),
    status,
    ...results.map((one) => foreignCell(one, foreign)),
    foreign(error),
  ]
}

/** A number that a result has is no formula. */
function foreignCell(value: unknown, foreign: (cell: string) => string): string {
  return typeof value === 'number' ? cellOf(value) : foreign(cellOf(value))
}

/** The line's own text, with what is new put in at its end: so its numbers stay as long as they are. */
function jsonLine([, json, status, result, error]: Row, names: OwnNames): string {
  const own = json.slice(0, json.lastIndexOf('}')).trimEnd()
  const added = [
    `${JSON.stringify(names.status)}:${JSON.stringify(status)}`,
    `${JSON.stringify(names.result)}:${result === '' ? 'null' : result}`,
    `${JSON.stringify(names.error)}:${error === '' ? 'null' : JSON.stringify(error)}`,
  ].join(',')
  return `${own}${own.endsWith('{') ? '' : ','}${added}}\n`
}
