import { TriphaseError } from '../errors.ts'
import {
  DESCRIBE_TABLE,
  MAY_COUNT,
  placeColumns,
  type TableNames,
  type TableShape,
  type TableStatements,
  tableName,
  tableStatements,
} from '../store/sweep-table.ts'

/** How a sweep reaches the application's database: single statements that hold a connection only for themselves. */
export interface RunOnApplication {
  query(text: string, values?: readonly unknown[]): Promise<{ rows: unknown[] }>
  /** Name of the engine's schema, and a statement's text for it. */
  readonly schema: string
  text(sql: string): string
}

export interface PendingRecord {
  /** A JSON array of the key's columns as texts, written by the database. */
  key: string
  /** Where it stands in the sweep's order, written likewise. */
  place: string
  row: Record<string, unknown>
}

export interface Mark {
  key: string
  result: string | null
  /** Why it is an error; null: it is done. */
  error: string | null
}

interface Column {
  name: string
  type: string
  /** With its length, where it has one. */
  whole: string
  base: string
  notNull: boolean
  default: string | null
}

interface Described {
  kind: string
  partitioned: boolean
  allowed: boolean
  columns: string
  indexes: string | null
}

interface Index {
  unique: boolean
  /** Some of its columns ascend and others descend: it can give no order of all. */
  mixed: boolean
  partial: string | null
  columns: string[] | null
}

type ExplainedPlan = { Plan?: { 'Plan Rows'?: number } }[]

const KEY_TYPES = ['int2', 'int4', 'int8', 'numeric', 'uuid', 'text', 'varchar', 'bpchar', 'citext', 'name']
const ORDER_TYPES = [...KEY_TYPES, 'date', 'timestamp', 'timestamptz', 'float4', 'float8', 'bool']
const JSON_TYPES = ['json', 'jsonb']

function missing(names: TableNames): string {
  return `there is no table ${tableName(names)} that this role can see`
}

interface Found {
  statements: TableStatements
  /** Columns of the result are JSON: a text is written as a JSON text. */
  resultIsJson: boolean
}

/** A sweep's table in the database. The first use looks at what it is; a table that does not fit is refused whole. */
export class RecordTable {
  readonly names: TableNames
  #found: Found | undefined

  constructor(names: TableNames) {
    this.names = names
  }

  /**
   * Everything that keeps the table from being swept, one line each; empty when it fits.
   *
   * @throws what the database answers with when it cannot be asked.
   */
  async faults(application: RunOnApplication): Promise<string[]> {
    const { rows } = await application.query(DESCRIBE_TABLE, [tableName(this.names)])
    const [row] = rows as Described[]
    if (!row) return [missing(this.names)]
    if (!['r', 'p'].includes(row.kind))
      return [`${tableName(this.names)} is not a table (views cannot be swept)`]
    const columns: Column[] = JSON.parse(jsonOf(row.columns))
    const indexes: Index[] = JSON.parse(jsonOf(row.indexes ?? []))
    const hint = row.kind === 'p' ? ' (partitioned: tell migration() its partitions)' : ''
    const indexFaults = this.#indexFaults(indexes).map((fault) => fault + hint)
    const faults = [...this.#columnFaults(columns), ...indexFaults]
    if (!row.allowed) faults.push('this role may not SELECT and UPDATE it')
    faults.push(...(await countFaults(application)))
    if (faults.length === 0) this.#found = this.#foundIn(columns, row.partitioned)
    return faults
  }

  async require(application: RunOnApplication): Promise<void> {
    const faults = await this.faults(application)
    if (faults.length === 0) return
    const remedy = faults.includes(missing(this.names))
      ? 'Create it, or let this role see its schema (loadFile creates that of a file sweep).'
      : 'engine.sweep(sweep).migration() writes what is missing.'
    const table = tableName(this.names)
    throw new TriphaseError(
      'SWEEP_TABLE',
      `The table ${table} cannot be swept: ${faults.join('; ')}. ${remedy}`,
    )
  }

  /** Places at which the next pages end. */
  async boundaries(
    application: RunOnApplication,
    cursor: string | null,
    pages: number,
    pageSize: number,
  ): Promise<string[]> {
    const { statements } = await this.#use(application)
    const values = [cursor, pages * pageSize, pageSize]
    const { rows } = await application.query(statements.boundaries, values)
    return (rows as { place: unknown }[]).map((row) => jsonOf(row.place))
  }

  async pending(
    application: RunOnApplication,
    range: { after: string | null; upTo: string | null },
    limit: number,
  ): Promise<PendingRecord[]> {
    const { statements } = await this.#use(application)
    const { rows } = await application.query(statements.pending, [range.after, range.upTo, limit])
    return (rows as Record<string, unknown>[]).map(recordOf)
  }

  /** A record as it is now; null when it is not pending any more. */
  async pendingRecord(application: RunOnApplication, key: string): Promise<PendingRecord | null> {
    const [row] = await this.query<Record<string, unknown>>(application, 'pendingRecord', [key])
    return row ? recordOf(row) : null
  }

  /**
   * Marks pending records; says of each whether this statement marked it.
   *
   * @param options.now a locked row is an error (55P03), and not one that is left out.
   */
  async mark(
    application: RunOnApplication,
    marks: readonly Mark[],
    pageId: string | null,
    { now = false }: { now?: boolean } = {},
  ): Promise<boolean[]> {
    const { statements } = await this.#use(application)
    const statement = now ? statements.markNow : statements.mark
    const values = [
      pageId,
      marks.map(({ result }) => result),
      marks.map(({ error }) => error),
      ...keyArrays(marks, this.names.key.length),
    ]
    const { rows } = await application.query(application.text(statement), values)
    const [{ numbers }] = rows as [{ numbers: string | null }]
    if (numbers === null) return marks.map(() => true)
    const marked = new Set(String(numbers).split(' ').map(Number))
    return marks.map((_, index) => marked.has(index + 1))
  }

  /** Of these records those that exist: whether they are pending. */
  async look(application: RunOnApplication, keys: readonly string[]): Promise<Map<string, boolean>> {
    const { statements } = await this.#use(application)
    const { rows } = await application.query(statements.look, [JSON.stringify(keys.map(columnsOf))])
    return new Map(
      (rows as { recordkey: unknown; pending: boolean }[]).map((row) => [jsonOf(row.recordkey), row.pending]),
    )
  }

  /** About how many rows are pending, as the planner thinks. */
  async estimate(application: RunOnApplication): Promise<number> {
    const [row] = await this.query<Record<string, unknown>>(application, 'estimate', [])
    const plan = Object.values(row ?? {})[0]
    const [{ Plan: { 'Plan Rows': rows = 0 } = {} } = {}] =
      typeof plan === 'string' ? JSON.parse(plan) : (plan as ExplainedPlan)
    return rows
  }

  /** A result as the column takes it. */
  resultText(json: string, value: unknown): string | null {
    if (value === undefined || value === null) return null
    return typeof value === 'string' && !this.#found?.resultIsJson ? value : json
  }

  async query<Row>(
    application: RunOnApplication,
    name: keyof TableStatements,
    values: readonly unknown[],
  ): Promise<Row[]> {
    const { statements } = await this.#use(application)
    return (await application.query(statements[name], values)).rows as Row[]
  }

  async #use(application: RunOnApplication): Promise<Found> {
    if (!this.#found) await this.require(application)
    return this.#found as Found
  }

  #columnFaults(columns: readonly Column[]): string[] {
    const { key, order, status, result, error } = this.names
    const byName = new Map(columns.map((column) => [column.name, column]))
    const needed = new Set([...key, ...order, status, result, error])
    const faults = [...needed].filter((name) => !byName.has(name)).map((name) => `column ${name} is missing`)
    const check = (name: string, role: string, types: readonly string[]) => {
      const column = byName.get(name)
      if (column && !types.includes(column.base)) {
        faults.push(`${role} column ${name} is ${column.type}; it has to be one of ${types.join(', ')}`)
      }
      if (column && !column.notNull) faults.push(`${role} column ${name} allows NULL`)
    }
    for (const name of key) check(name, 'key', KEY_TYPES)
    for (const name of order) if (!key.includes(name)) check(name, 'order', ORDER_TYPES)
    const statusColumn = byName.get(status)
    if (statusColumn && !statusColumn.notNull) faults.push(`column ${status} allows NULL`)
    if (statusColumn && !statusColumn.default?.startsWith("'pending'")) {
      faults.push(`column ${status} has no default 'pending'`)
    }
    return faults
  }

  #indexFaults(indexes: readonly Index[]): string[] {
    const { key, status } = this.names
    const place = placeColumns(this.names)
    const faults: string[] = []
    const whole = indexes.filter(({ partial }) => partial === null)
    if (!whole.some(({ unique, columns }) => unique && columns?.every((name) => key.includes(name)))) {
      faults.push(`no primary key or unique index tells records apart by (${key.join(', ')})`)
    }
    if (!whole.some(({ columns }) => columns?.[0] === status)) faults.push(`no index begins with ${status}`)
    const pending = indexes.filter(
      ({ partial, columns }) =>
        partial?.includes("'pending'") &&
        partial.includes(status) &&
        place.every((name, index) => columns?.[index] === name),
    )
    const wanted = `(${place.join(', ')}) WHERE ${status} = 'pending'`
    if (pending.length === 0) faults.push(`no index on ${wanted}`)
    else if (pending.every(({ mixed }) => mixed))
      faults.push(`the index on ${wanted} has columns in different directions`)
    return faults
  }

  #foundIn(columns: readonly Column[], partitioned: boolean): Found {
    const column = (name: string) => columns.find((one) => one.name === name) as Column
    const { key, order, status, result, error } = this.names
    const shaped = (name: string) => ({ name, type: column(name).type })
    const shape: TableShape = {
      key: key.map(shaped),
      order: order.map(shaped),
      statusType: column(status).type,
      resultType: column(result).type,
      errorType: column(error).whole,
      partitioned,
    }
    return {
      statements: tableStatements(this.names, shape),
      resultIsJson: JSON_TYPES.includes(column(result).base),
    }
  }
}

/** Text of JSON that came from the database: plugins of query builders parse whatever looks like it. */
export function jsonOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value)
}

async function countFaults({ query, schema }: RunOnApplication): Promise<string[]> {
  const { rows } = await query(MAY_COUNT, [schema])
  const [found] = rows as { allowed: boolean }[]
  if (!found) {
    return [
      `the application's database has no ${schema}.sweep_page: it must be the engine's database, and migrated`,
    ]
  }
  return found.allowed
    ? []
    : [
        `this role may not write ${schema}.sweep_page: GRANT USAGE on the schema, SELECT and UPDATE on the table`,
      ]
}

/** Takes what was selected for the sweep off the row; `delete` would make a slow object of it. */
function recordOf({ triphasekey, triphaseplace, ...row }: Record<string, unknown>): PendingRecord {
  const key = jsonOf(triphasekey)
  return { key, place: triphaseplace === undefined ? key : jsonOf(triphaseplace), row }
}

/** The first columns of all keys, then the second ones, and so on. */
function keyArrays(marks: readonly Mark[], columns: number): string[][] {
  const keys = marks.map(({ key }) => JSON.parse(key) as string[])
  return Array.from({ length: columns }, (_, index) => keys.map((key) => key[index] as string))
}

/** The columns of a key as a row of JSON has them. */
export function columnsOf(key: string): Record<string, string> {
  return Object.fromEntries((JSON.parse(key) as string[]).map((text, index) => [`k${index}`, text]))
}
