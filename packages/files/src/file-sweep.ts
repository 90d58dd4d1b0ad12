import type { StandardSchemaV1 } from '@standard-schema/spec'
import pg from 'pg'
import { defineSweep, type EachContext, type Sweep, type SweepDefinition, TriphaseError } from 'triphase'

/** A line as its sweep gets it. */
export interface FileLine<Item = unknown> {
  /** As an editor counts; the header row of a CSV file is line 1. */
  readonly line: number
  readonly record: Item
}

/** What `each` gets beside the record. */
export interface LineContext extends EachContext {
  /** Of the file; a record that spans several has the first of them. */
  readonly line: number
}

/** @see defineFileSweep */
export interface FileSweepDefinition<Line, Item>
  extends Omit<SweepDefinition<unknown, unknown>, 'table' | 'record' | 'each'> {
  /**
   * Any Standard Schema of a line: of a CSV file an object of texts by column, of a JSONL file what the line is. All lines
   * are checked before any is loaded. Default: no check.
   */
  line?: StandardSchemaV1<Line, Item>
  /** The table that is made for the lines, `'uploads'` or `'media.uploads'`. Default: the sweep's name and `_lines`. */
  table?: string
  /** Makes the call for one line. No transaction is open and no connection is held. Its return value is the result. */
  each: (record: Item, context: LineContext) => Promise<unknown>
  /**
   * Fields of a result that get columns of their own in an exported CSV file, instead of one column `result`. Other fields
   * are left out there.
   */
  resultColumns?: readonly string[]
}

/** A sweep over the lines of a file. Made by `defineFileSweep`. */
export interface FileSweep<Item = unknown> extends Sweep<FileLine<Item>> {
  /** @internal */
  readonly file: FileSettings
}

/**
 * Whether a task of an engine is a sweep over a file.
 *
 * @example
 * const names = tasks.filter(isFileSweep).map(({ name }) => name)
 */
export function isFileSweep(task: object): task is FileSweep {
  return 'file' in task && 'settings' in task && 'table' in task
}

/** What loading and exporting need to know of a sweep. @internal */
export interface FileSettings {
  /** The table's schema, where it was named, and its name; not quoted. */
  readonly schema: string | null
  readonly table: string
  readonly line: StandardSchemaV1<unknown, unknown> | null
  readonly resultColumns: readonly string[] | null
}

/**
 * Defines a sweep over the lines of a CSV or JSONL file: `loadFile` makes its table, `engine.sweep` runs it, and
 * `exportFile` writes each line again, with its result or its error. See docs/files.md.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const classify = defineFileSweep({
 *   name: 'classify',
 *   line: z.object({ id: z.string(), text: z.string().min(1) }),
 *   concurrency: 12,
 *   each: ({ text }, { signal, idempotencyKey }) => askModel(text, { signal, idempotencyKey }),
 * })
 */
export function defineFileSweep<Line = Record<string, string>, Item = Line>(
  definition: FileSweepDefinition<Line, Item>,
): FileSweep<Item> {
  const { line, table, each, resultColumns, ...options } = definition
  const faults = [...tableFaults(table), ...columnFaults(resultColumns)]
  if (typeof each !== 'function') faults.push('each: a function')
  if (line !== undefined && typeof line?.['~standard']?.validate !== 'function') {
    faults.push('line: a Standard Schema, such as z.object({ … })')
  }
  if (faults.length > 0) {
    const name = JSON.stringify(definition.name)
    throw new TriphaseError('INVALID_OPTIONS', `File sweep ${name} cannot work: ${faults.join('; ')}.`)
  }
  const [schema, name] = partsOf(table ?? defaultTable(definition.name))
  const quoted = [schema, name].filter((part) => part !== null).map((part) => pg.escapeIdentifier(part))
  const sweep = defineSweep<unknown, FileLine<Item>>({
    ...options,
    table: { name: quoted.join('.'), key: ['load', 'line'], error: 'error' },
    record: lineSchema(line ?? null),
    each: ({ line: number, record }, context) => each(record, contextOf(number, context)),
  })
  const file: FileSettings = {
    schema,
    table: name,
    line: (line ?? null) as FileSettings['line'],
    resultColumns: resultColumns ?? null,
  }
  return Object.freeze({ ...sweep, file: Object.freeze(file) })
}

/** An idempotency key is made when it is asked for. */
function contextOf(line: number, context: EachContext): LineContext {
  return {
    line,
    signal: context.signal,
    get idempotencyKey() {
      return context.idempotencyKey
    },
    attempt: context.attempt,
    spend: (amount) => context.spend(amount),
  }
}

/** A row of the table as the definition's own schema sees it: the line alone. */
function lineSchema<Item>(
  schema: StandardSchemaV1<unknown, Item> | null,
): StandardSchemaV1<unknown, FileLine<Item>> {
  return {
    '~standard': {
      version: 1,
      vendor: 'triphase-files',
      async validate(row) {
        const { line, record } = row as { line: unknown; record: unknown }
        // Query libraries differ in what they make of JSON and of int8.
        const value: unknown = typeof record === 'string' ? JSON.parse(record) : record
        if (!schema) return { value: { line: Number(line), record: value as Item } }
        const checked = await schema['~standard'].validate(value)
        return checked.issues ? checked : { value: { line: Number(line), record: checked.value } }
      },
    },
  }
}

const LONGEST_NAME = 63

function defaultTable(name: string): string {
  return `${String(name)
    .replaceAll(/[^A-Za-z0-9_]+/g, '_')
    .slice(0, LONGEST_NAME - '_lines'.length)}_lines`
}

function partsOf(table: string): [schema: string | null, table: string] {
  const dot = table.indexOf('.')
  return dot < 0 ? [null, table] : [table.slice(0, dot), table.slice(dot + 1)]
}

function tableFaults(table: string | undefined): string[] {
  if (table === undefined) return []
  const parts = typeof table === 'string' ? table.split('.') : []
  const fits = (part: string) => /^[^"\0.]+$/.test(part) && Buffer.byteLength(part) <= LONGEST_NAME
  if (parts.length > 0 && parts.length <= 2 && parts.every(fits)) return []
  return [`table: a table's name, with its schema where it has one: 'media.uploads'`]
}

function columnFaults(columns: readonly string[] | undefined): string[] {
  if (columns === undefined) return []
  const fits =
    Array.isArray(columns) &&
    columns.length > 0 &&
    columns.every((name) => typeof name === 'string' && name !== '') &&
    new Set(columns).size === columns.length &&
    !columns.includes('status') &&
    !columns.includes('error')
  return fits ? [] : ['resultColumns: names of fields, each once, and neither status nor error']
}
