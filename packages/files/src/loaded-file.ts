import type pg from 'pg'
import { TriphaseError } from 'triphase'
import type { FileFormat } from './file-format.ts'
import type { FileFacts } from './file-lines.ts'
import type { FileSettings, FileSweep } from './file-sweep.ts'
import { FIND_TABLE, tableName } from './store/line-table.ts'

/** The file whose lines are in a sweep's table. */
export interface LoadedFile {
  /** Without its folder. */
  readonly name: string
  /** Of its content, in hexadecimal. */
  readonly sha256: string
  readonly bytes: number
  /** Lines with something in them, the header row not counted. */
  readonly lines: number
  readonly format: FileFormat
  /** In the order of the header row, or in which they first appear; null: a JSONL file with more than a thousand names. */
  readonly columns: readonly string[] | null
  readonly loadedAt: Date
}

/** Everything that the table's comment says. It lives and dies with the table, and is changed with it or not at all. */
export interface TableNote extends FileFacts {
  readonly triphase: 'file'
  /** Of this table; rises. */
  readonly load: number
  readonly name: string
  readonly format: FileFormat
  readonly loadedAt: string
}

/** Anything that runs a statement. */
type Connection = Pick<pg.ClientBase, 'query'>

/**
 * Which file is loaded; null: none.
 *
 * @throws {TriphaseError} `SWEEP_TABLE` when a table of that name was made by somebody else.
 * @example
 * const file = await loadedFile({ pool }, classify)
 * if (file) console.log(`${file.lines} lines of ${file.name}`)
 */
export async function loadedFile({ pool }: { pool: pg.Pool }, sweep: FileSweep): Promise<LoadedFile | null> {
  const note = await findNote(pool, sweep.file)
  return note && fileOf(note)
}

export function fileOf({ name, sha256, bytes, lines, format, columns, loadedAt }: TableNote): LoadedFile {
  return { name, sha256, bytes, lines, format, columns, loadedAt: new Date(loadedAt) }
}

export async function findNote(connection: Connection, file: FileSettings): Promise<TableNote | null> {
  const table = tableName(file.schema, file.table)
  const { rows } = await connection.query<{ kind: string; comment: string | null }>(FIND_TABLE, [table])
  const [found] = rows
  if (!found) return null
  const note = found.kind === 'r' ? noteIn(found.comment ?? '') : null
  if (note) return note
  throw new TriphaseError(
    'SWEEP_TABLE',
    `The table ${table} was not made by loadFile, or its comment was changed: it is left alone. Give the sweep another table.`,
  )
}

function noteIn(comment: string): TableNote | null {
  try {
    const note: unknown = JSON.parse(comment)
    return typeof note === 'object' && note !== null && 'triphase' in note && note.triphase === 'file'
      ? (note as TableNote)
      : null
  } catch {
    return null
  }
}
