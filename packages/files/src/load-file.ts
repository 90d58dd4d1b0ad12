import { once } from 'node:events'
import path from 'node:path'
import { finished } from 'node:stream/promises'
import type { StandardSchemaV1 } from '@standard-schema/spec'
import type pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { type Engine, TriphaseError } from 'triphase'
import { withConnection } from './connection.ts'
import { FaultList, FileFaults } from './faults.ts'
import { type FileFormat, type FormatOptions, formatOf } from './file-format.ts'
import { type FileFacts, LONGEST_LINE_BYTES, readLines } from './file-lines.ts'
import type { FileSweep } from './file-sweep.ts'
import { fileOf, findNote, type LoadedFile, type TableNote } from './loaded-file.ts'
import type { ReadProgress } from './source.ts'
import {
  commentOn,
  copyLines,
  countLines,
  createTable,
  dropTable,
  indexTable,
  lockTable,
  renameTable,
  SET_LIMITS,
  TRY_LOCK,
  tableName,
} from './store/line-table.ts'

/** What loading works with: the engine that runs the sweep, and a pool of the application's database. */
export interface LoadParts {
  readonly engine: Pick<Engine<never>, 'sweep'>
  /** Its settings are used, for a connection that loading opens for itself; none of its connections is taken. */
  readonly pool: pg.Pool
}

export interface LoadOptions extends FormatOptions {
  /** Puts the file in the place of another one, whose results are lost. Never while a run is open. Default false. */
  replace?: boolean
  /** A longer line is a fault. Default 1 MiB. */
  maxLineBytes?: number
  /** Called every thousand lines or so. */
  onProgress?: (progress: ReadProgress) => void
  signal?: AbortSignal
}

const LONGEST_NAME = 63
const BLOCK_CHARACTERS = 64 * 1024

/**
 * Loads a CSV or JSONL file into a table of its own, for a sweep to go over its lines. All lines are checked first; then
 * they come into the table together or not at all. The same file again changes nothing.
 *
 * @returns the file, and whether this call has loaded it.
 * @throws {FileFaults} `FILE_FAULTS`: lines that cannot be used, by number.
 * @throws {TriphaseError} `FILE_UNREADABLE`; `FILE_CHANGED` while it was read; `FILE_LOADED`: the table holds another file;
 *   `FILE_LOADING`: somebody loads one at this moment; `SWEEP_OPEN`: a run works on the table; `SWEEP_TABLE`: a table of
 *   that name was made by somebody else; `DISK_FULL`: the database's; `CONNECTION_FAILED`, `NO_PERMISSION`,
 *   `WRITE_REFUSED`, `INVALID_OPTIONS`.
 * @example
 * const { lines, loaded } = await loadFile({ engine, pool }, classify, 'list.csv')
 * await engine.sweep(classify).run()
 */
export async function loadFile(
  parts: LoadParts,
  sweep: FileSweep,
  file: string,
  options: LoadOptions = {},
): Promise<LoadedFile & { loaded: boolean }> {
  const format = await formatOf(file, options)
  const loading = new Loading(parts, sweep, file, format, options)
  await loading.check()
  const { note, loaded } = await withConnection(parts.pool, options.signal, (client) => loading.load(client))
  return { ...fileOf(note), loaded }
}

class Loading {
  readonly #parts: LoadParts
  readonly #sweep: FileSweep
  readonly #file: string
  readonly #format: FileFormat
  readonly #options: LoadOptions
  readonly #table: string
  #facts: FileFacts | undefined

  constructor(parts: LoadParts, sweep: FileSweep, file: string, format: FileFormat, options: LoadOptions) {
    this.#parts = parts
    this.#sweep = sweep
    this.#file = file
    this.#format = format
    this.#options = options
    this.#table = tableName(sweep.file.schema, sweep.file.table)
    const { maxLineBytes = LONGEST_LINE_BYTES } = options
    if (!Number.isInteger(maxLineBytes) || maxLineBytes < 1) {
      throw new TriphaseError('INVALID_OPTIONS', `${file}: maxLineBytes: a whole number above 0.`)
    }
  }

  /** Reads the file to its end; nothing is asked of the database. */
  async check(): Promise<void> {
    const { line: schema } = this.#sweep.file
    const faults = new FaultList()
    this.#facts = await this.#read('checking', faults, (line, _json, record) =>
      schema ? checkLine(schema, line, record, faults) : undefined,
    )
    if (faults.count > 0) throw new FileFaults(this.#file, faults)
  }

  async load(client: pg.Client): Promise<{ note: TableNote; loaded: boolean }> {
    await client.query('BEGIN')
    await client.query(SET_LIMITS)
    const { rows } = await client.query<{ locked: boolean }>(TRY_LOCK, [this.#table])
    if (!rows[0]?.locked) {
      throw new TriphaseError(
        'FILE_LOADING',
        `Somebody else loads a file into ${this.#table} at this moment. Try again when they are done.`,
      )
    }
    const there = await findNote(client, this.#sweep.file)
    if (there && !this.#options.replace) {
      if (!this.#isIn(there)) throw await this.#refusal(client, there)
      return { note: there, loaded: false }
    }
    if (there) await this.#requireNoRun()
    const note = this.#note((there?.load ?? 0) + 1)
    await this.#fill(client, note)
    if (there) {
      // Only now that nobody reads the old lines any more: a run that begins later finds the new ones.
      await client.query(lockTable(this.#table))
      await this.#requireNoRun()
      await client.query(dropTable(this.#table))
    }
    await client.query(renameTable(this.#loadingTable(note), this.#sweep.file.table))
    await client.query('COMMIT')
    return { note, loaded: true }
  }

  async #fill(client: pg.Client, note: TableNote): Promise<void> {
    const table = this.#loadingTable(note)
    await client.query(createTable(table, note.load))
    await this.#copy(client, table)
    await client.query(indexTable(table))
    await client.query(commentOn(table, JSON.stringify(note)))
  }

  /** Reads the file for the second time. */
  async #copy(client: pg.Client, table: string): Promise<void> {
    const stream = client.query(copyFrom(copyLines(table)))
    const ended = finished(stream)
    // Met below; a refusal may come at any time.
    ended.catch(() => {})
    let refusal: Error | undefined
    stream.on('error', (error) => {
      refusal = error
    })
    let block = ''
    const write = async () => {
      // The stream tells of it and would go on taking writes, for a connection that it has let go.
      if (refusal) throw refusal
      const full = !stream.write(block)
      block = ''
      if (full) await Promise.race([once(stream, 'drain'), ended])
    }
    const faults = new FaultList()
    const facts = await this.#read('loading', faults, (line, json) => {
      block += `${line}\t${escaped(json)}\n`
      return block.length < BLOCK_CHARACTERS ? undefined : write()
    })
    if (faults.count > 0 || facts.sha256 !== this.#facts?.sha256) {
      throw new TriphaseError(
        'FILE_CHANGED',
        `${this.#file} changed while it was read, and nothing was loaded. Load it again when nobody writes to it.`,
      )
    }
    if (refusal) throw refusal
    stream.end(block)
    await ended
  }

  #read(
    step: ReadProgress['step'],
    faults: FaultList,
    take: Parameters<typeof readLines>[3],
  ): Promise<FileFacts> {
    const { maxLineBytes = LONGEST_LINE_BYTES, onProgress, signal } = this.#options
    const options = { format: this.#format, maxLineBytes, step, onProgress, signal }
    return readLines(this.#file, options, faults, take)
  }

  /** The same bytes, read in the same way. */
  #isIn({ sha256, format }: TableNote): boolean {
    return sha256 === this.#facts?.sha256 && JSON.stringify(format) === JSON.stringify(this.#format)
  }

  async #refusal(client: pg.Client, { name, lines }: TableNote): Promise<TriphaseError> {
    const { rows } = await client.query<{ status: string; count: string }>(countLines(this.#table))
    const count = (status: string) => rows.find((row) => row.status === status)?.count ?? '0'
    const state = `${count('pending')} pending, ${count('done')} done, ${count('error')} errors`
    return new TriphaseError(
      'FILE_LOADED',
      `${this.#table} holds another file, or an earlier state of this one: ${name}, ${lines} lines (${state}). To load ${this.#file} in its place, which loses these results, ask for it to be replaced.`,
    )
  }

  async #requireNoRun(): Promise<void> {
    const status = await this.#parts.engine
      .sweep(this.#sweep)
      .status()
      .catch((error: unknown) => {
        if (error instanceof TriphaseError && error.code === 'NO_SWEEP_RUN') return null
        throw error
      })
    if (!status || ['completing', 'completed', 'cancelled', 'failed'].includes(status.state)) return
    throw new TriphaseError(
      'SWEEP_OPEN',
      `A run of sweep ${this.#sweep.name} is open (${status.state}): its file is not replaced. Wait until it has completed, or cancel it.`,
    )
  }

  /** Its own name until it takes the place of the other; unique, as loads are numbered and happen one at a time. */
  #loadingTable({ load }: TableNote): string {
    const { schema, table } = this.#sweep.file
    const suffix = `_load_${load}`
    const short = Buffer.from(table)
      .subarray(0, LONGEST_NAME - suffix.length)
      .toString()
      .replaceAll('\ufffd', '')
    return tableName(schema, short + suffix)
  }

  #note(load: number): TableNote {
    const facts = this.#facts as FileFacts
    const loadedAt = new Date().toISOString()
    return {
      triphase: 'file',
      load,
      name: path.basename(this.#file),
      format: this.#format,
      loadedAt,
      ...facts,
    }
  }
}

/** What COPY's text format has a meaning for. */
function escaped(json: string): string {
  const text = json.includes('\\') ? json.replaceAll('\\', '\\\\') : json
  return /[\t\r\n]/.test(text)
    ? text.replaceAll('\t', '\\t').replaceAll('\r', '\\r').replaceAll('\n', '\\n')
    : text
}

function checkLine(
  schema: StandardSchemaV1<unknown, unknown>,
  line: number,
  record: unknown,
  faults: FaultList,
): Promise<void> | undefined {
  const note = ({ issues }: StandardSchemaV1.Result<unknown>) => {
    if (issues) faults.add(line, issues.map(issueText).join('; '))
  }
  const checked = schema['~standard'].validate(record)
  if (checked instanceof Promise) return checked.then(note)
  note(checked)
  return undefined
}

function issueText({ path: at = [], message }: StandardSchemaV1.Issue): string {
  const names = at.map((part) => String(typeof part === 'object' ? part.key : part))
  return names.length > 0 ? `${names.join('.')}: ${message}` : message
}
