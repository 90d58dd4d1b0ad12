import type { StandardSchemaV1 } from '@standard-schema/spec'
import type { Backoff } from '../backoff.ts'
import { type Duration, milliseconds } from '../duration.ts'
import { TriphaseError } from '../errors.ts'
import { PRIORITIES, type Priority } from '../job.ts'
import type { TableNames } from '../store/sweep-table.ts'
import { type ExecutionContext, optionFaults, type Task, taskOf } from '../task.ts'
import { RecordTable } from './record-table.ts'
import { type SweepInput, sweepInput } from './sweep-input.ts'

/** Which way records are taken. */
export type SweepDirection = 'ascending' | 'descending'

/** An order by other columns than the key's: `{ by: 'created_at', direction: 'descending' }`. */
export interface SweepOrder {
  by: string | readonly string[]
  /** Of all columns. Default `'ascending'`. */
  direction?: SweepDirection
}

/** The table that a sweep goes over. Names are those of the database, as they are; they are quoted. */
export interface SweepTable {
  /** `'files'`, or with its schema: `'media.files'`; a name with a dot in it is quoted: `'media."my.files"'`. */
  name: string
  /** The columns that identify a record: a unique key without nulls, of integers, uuids or texts. */
  key: string | readonly string[]
  /** Text (or an enum) of `pending`, `done` and `error`. Default `'status'`. */
  status?: string
  /** Gets what `each` returned: text as it is, anything else as JSON. Default `'result'`. */
  result?: string
  /** Gets the reason of an error, as text. Default `'error_message'`. */
  error?: string
  /** A condition in SQL that records of this sweep meet, such as `'deleted_at IS NULL'`. Never put input of users here. */
  where?: string
  /**
   * The order in which records are taken: of the key, up or down, or of other columns before the key's, all in one
   * direction. Such a column has no nulls and seldom changes. Default `'ascending'`.
   */
  order?: SweepDirection | SweepOrder
}

/** What `each` gets beside the record. */
export interface EachContext {
  /** Fires on the record's timeout, when the page's job is lost or cancelled, and at the end of a stop's grace period. */
  readonly signal: AbortSignal
  /** The same for every call that a run makes for this record. */
  readonly idempotencyKey: string
  /** From 1. */
  readonly attempt: number
  /** Adds to what the run has spent, in the unit of its `spend` budget. */
  spend(amount: number): void
}

/** What `onDone` gets. */
export interface SweepDoneContext {
  readonly run: {
    readonly id: string
    readonly done: number
    readonly errors: number
    readonly calls: number
    readonly spent: number
  }
  readonly signal: AbortSignal
  readonly idempotencyKey: string
}

/** When a run pauses itself. */
export interface SweepBreaker {
  /** After so many calls that failed in a row, over all processes. Default 20. */
  inRow?: number
  /** When at least this share of the recent calls failed. Default 0.5. */
  share?: number
  /** How many recent calls that takes. Default 100. */
  window?: number
}

/** What a run may use before it pauses itself. */
export interface SweepBudget {
  /** Calls. What a process had begun in the last second before it died is not counted. */
  calls?: number
  /** What `spend` adds up to; calls that are under way when it is reached are added. */
  spend?: number
}

/** @see defineSweep */
export interface SweepDefinition<Row, Item> {
  /** Unique among the engine's tasks. */
  name: string
  table: SweepTable
  /** Any Standard Schema of a row. A row that does not fit is marked as an error, without a call. Default: no check. */
  record?: StandardSchemaV1<Row, Item>
  /** Makes the call for one record. No transaction is open and no connection is held. Its return value is the result. */
  each: (record: Item, context: EachContext) => Promise<unknown>
  /** Calls at a time, over all processes. Default 8. */
  concurrency?: number
  /** Calls a second, over all processes. Default: no limit. */
  rate?: number
  /** Records a page job. Default: as many as take about 2 s, from 500 to 10,000. */
  pageSize?: number
  /** How often a record is tried again after an error that may pass. `RetryAfter` does not count. Default 3. */
  retries?: number
  /** Pauses between tries. Default: from 1 s, doubling, to 5 min. */
  backoff?: Backoff
  /** Time for one call. Default 60 s. */
  timeout?: Duration
  breaker?: SweepBreaker
  budget?: SweepBudget
  /** Runs once all records are through, as a job: at least once, tried again when it fails. */
  onDone?: (context: SweepDoneContext) => unknown
  /** The queue of its jobs. Default `'default'`. */
  queue?: string
  /** Of its page jobs and its hook. Default `'normal'`. */
  priority?: Priority
}

/** A definition with every default filled in; lengths of time are milliseconds. */
export interface SweepSettings {
  readonly name: string
  readonly names: TableNames
  readonly schema: StandardSchemaV1<unknown, unknown> | undefined
  readonly each: (record: unknown, context: EachContext) => Promise<unknown>
  readonly onDone: ((context: SweepDoneContext) => unknown) | undefined
  readonly concurrency: number
  readonly rate: number | null
  /** Null: by how quick they are. */
  readonly pageSize: number | null
  readonly retries: number
  readonly backoff: Backoff
  readonly timeoutMs: number
  readonly breaker: { inRow: number; share: number; window: number }
  readonly budget: { calls: number | null; spend: number | null }
  readonly queue: string
  readonly priority: number
}

/** A task that goes over a table. Made by `defineSweep`; `engine.sweep` controls its runs. */
export interface Sweep<Item = unknown> extends Task<SweepInput, unknown> {
  /** @internal */
  readonly settings: SweepSettings
  /** @internal */
  readonly table: RecordTable
  /** @internal Only a type. */
  readonly '~item'?: Item
}

export function isSweep(task: object): task is Sweep {
  return 'table' in task && task.table instanceof RecordTable
}

/** Runs a job of a sweep. */
export type RunSweepJob = (
  settings: SweepSettings,
  table: RecordTable,
  context: ExecutionContext<unknown>,
) => Promise<unknown>

/** Builds a sweep; `defineSweep` gives it the code that runs its jobs. */
export function sweepOf<Row, Item>(definition: SweepDefinition<Row, Item>, run: RunSweepJob): Sweep<Item> {
  const faults = sweepFaults(definition as SweepDefinition<unknown, unknown>)
  if (faults.length > 0) {
    throw new TriphaseError(
      'INVALID_OPTIONS',
      `Sweep ${JSON.stringify(definition.name)} cannot work: ${faults.join('; ')}.`,
    )
  }
  const settings = settingsOf(definition as unknown as SweepDefinition<unknown, unknown>)
  const table = new RecordTable(settings.names)
  const options = { queue: settings.queue, ...(definition.priority ? { priority: definition.priority } : {}) }
  const { name, each } = definition
  const task = taskOf<SweepInput, unknown>(name, sweepInput, options, { each }, (context) =>
    run(settings, table, context),
  )
  return Object.freeze({ ...task, settings, table })
}

function settingsOf(definition: SweepDefinition<unknown, unknown>): SweepSettings {
  const { table, breaker = {}, budget = {} } = definition
  const backoff: Backoff = { initial: '1s', max: '5m', ...definition.backoff }
  return Object.freeze({
    name: definition.name,
    names: {
      ...namesIn(table.name),
      key: typeof table.key === 'string' ? [table.key] : [...table.key],
      status: table.status ?? 'status',
      result: table.result ?? 'result',
      error: table.error ?? 'error_message',
      where: table.where,
      order: orderOf(table).by,
      descending: orderOf(table).direction === 'descending',
    },
    schema: definition.record as SweepSettings['schema'],
    each: definition.each as SweepSettings['each'],
    onDone: definition.onDone,
    concurrency: definition.concurrency ?? 8,
    rate: definition.rate ?? null,
    pageSize: definition.pageSize ?? null,
    retries: definition.retries ?? 3,
    backoff,
    timeoutMs: milliseconds(definition.timeout ?? '60s'),
    breaker: { inRow: breaker.inRow ?? 20, share: breaker.share ?? 0.5, window: breaker.window ?? 100 },
    budget: { calls: budget.calls ?? null, spend: budget.spend ?? null },
    queue: definition.queue ?? 'default',
    priority: PRIORITIES.indexOf(definition.priority ?? 'normal'),
  })
}

const OPTIONS = [
  'name',
  'table',
  'record',
  'each',
  'concurrency',
  'rate',
  'pageSize',
  'retries',
  'backoff',
  'timeout',
  'breaker',
  'budget',
  'onDone',
  'queue',
  'priority',
]
const TABLE_OPTIONS = ['name', 'key', 'status', 'result', 'error', 'where', 'order']

function sweepFaults(definition: SweepDefinition<unknown, unknown>): string[] {
  const { queue, priority, timeout, backoff } = definition
  const shared = Object.entries({ queue, priority, timeout, backoff }).filter(
    ([, value]) => value !== undefined,
  )
  return [
    ...unknownIn('', definition, OPTIONS),
    ...optionFaults(Object.fromEntries(shared)),
    ...tableFaults(definition.table),
    ...(typeof definition.each === 'function' ? [] : ['each: a function']),
    ...wholeFault('concurrency', definition.concurrency, 1, 10_000),
    ...wholeFault('pageSize', definition.pageSize, 1, 10_000),
    ...wholeFault('retries', definition.retries, 0, 1_000),
    ...positiveFault('rate', definition.rate),
    ...unknownIn('breaker.', definition.breaker ?? {}, ['inRow', 'share', 'window']),
    ...wholeFault('breaker.inRow', definition.breaker?.inRow, 1, 1_000_000),
    ...wholeFault('breaker.window', definition.breaker?.window, 1, 1_000_000),
    ...positiveFault('breaker.share', definition.breaker?.share, 1),
    ...unknownIn('budget.', definition.budget ?? {}, ['calls', 'spend']),
    ...wholeFault('budget.calls', definition.budget?.calls, 0, Number.MAX_SAFE_INTEGER),
    ...positiveFault('budget.spend', definition.budget?.spend),
  ]
}

function tableFaults(table: SweepTable): string[] {
  if (typeof table !== 'object' || table === null) return ['table: an object with name and key']
  const faults = unknownIn('table.', table, TABLE_OPTIONS)
  if (typeof table.name !== 'string' || !isTableName(table.name)) {
    faults.push(`table.name: a table's name, with its schema where it has one: 'media.files'`)
  }
  const key = typeof table.key === 'string' ? [table.key] : table.key
  if (!Array.isArray(key) || key.length === 0 || !key.every(isName) || new Set(key).size < key.length) {
    faults.push('table.key: the names of the columns that identify a record')
  }
  const names = [table.status ?? 'status', table.result ?? 'result', table.error ?? 'error_message']
  if (!names.every(isName)) faults.push('table.status, table.result, table.error: names of columns')
  else if (new Set([...names, ...(Array.isArray(key) ? key : [])]).size < names.length + (key?.length ?? 0)) {
    faults.push('table: key, status, result and error are different columns')
  }
  faults.push(...orderFaults(table))
  if (table.where !== undefined && (typeof table.where !== 'string' || table.where.trim() === '')) {
    faults.push('table.where: a condition in SQL')
  }
  return faults
}

function orderOf({ order = 'ascending' }: SweepTable): { by: string[]; direction: string } {
  if (typeof order === 'string') return { by: [], direction: order }
  const { by, direction = 'ascending' } = order
  return { by: typeof by === 'string' ? [by] : [...by], direction }
}

function orderFaults(table: SweepTable): string[] {
  const { order } = table
  const directions = 'ascending or descending'
  if (order === null || !['undefined', 'string', 'object'].includes(typeof order)) {
    return [`table.order: ${directions}, or { by, direction }`]
  }
  const given = typeof order === 'object' ? order : { by: 'key', direction: order }
  const faults = unknownIn('table.order.', given, ['by', 'direction'])
  const names = typeof given.by === 'string' ? [given.by] : given.by
  if (
    !Array.isArray(names) ||
    names.length === 0 ||
    !names.every(isName) ||
    new Set(names).size < names.length
  ) {
    faults.push('table.order.by: the names of columns, each once')
  }
  if (given.direction !== undefined && !['ascending', 'descending'].includes(given.direction)) {
    faults.push(`table.order.direction: ${directions}`)
  }
  return faults
}

function unknownIn(prefix: string, options: object, known: readonly string[]): string[] {
  return Object.keys(options)
    .filter((key) => !known.includes(key))
    .map((key) => `${prefix}${key}: there is no such option (there are ${known.join(', ')})`)
}

function wholeFault(name: string, value: number | undefined, least: number, most: number): string[] {
  if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) return []
  return [`${name}: a whole number from ${least} to ${most}`]
}

function positiveFault(
  name: string,
  value: number | undefined,
  most: number = Number.MAX_SAFE_INTEGER,
): string[] {
  if (value === undefined || (Number.isFinite(value) && value > 0 && value <= most)) return []
  return [`${name}: a number above 0${most < Number.MAX_SAFE_INTEGER ? ` and at most ${most}` : ''}`]
}

function isName(name: unknown): boolean {
  return typeof name === 'string' && name !== '' && Buffer.byteLength(name) <= 63 && !name.includes('\u0000')
}

const TABLE_NAME = /^(?:(?:"((?:[^"]|"")+)"|([^".]+))\.)?(?:"((?:[^"]|"")+)"|([^".]+))$/

function isTableName(name: string): boolean {
  if (!TABLE_NAME.test(name)) return false
  const { schema, table } = namesIn(name)
  return isName(table) && (schema === undefined || isName(schema))
}

/** A table's name and its schema's, as they are written in SQL. */
export function namesIn(name: string): { schema: string | undefined; table: string } {
  const [, quotedSchema, schema, quotedTable, table] = TABLE_NAME.exec(name) ?? []
  const plain = (text: string | undefined) => text?.replaceAll('""', '"')
  return { schema: plain(quotedSchema) ?? schema, table: plain(quotedTable) ?? table ?? '' }
}
