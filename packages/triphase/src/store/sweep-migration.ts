import { createHash } from 'node:crypto'
import { placeColumns, quoted, type TableNames, tableName } from './sweep-table.ts'

/** The statements that make a table fit for a sweep, each to be run outside a transaction. */
export interface SweepTableMigration {
  up: readonly string[]
  down: readonly string[]
}

/** A table or a partition of one. */
type Named = Pick<TableNames, 'schema' | 'table'>

/**
 * A column with a constant default is a change of the catalog alone (PostgreSQL 11 and later): no row is written, and
 * existing rows are pending. Indexes are built concurrently, so that the table stays open to writers; those of a
 * partitioned table on each partition, and then joined.
 *
 * @param partitions of a partitioned table, all of them.
 */
export function sweepTableMigration(
  names: TableNames,
  partitions: readonly Named[] = [],
): SweepTableMigration {
  const table = tableName(names)
  const [status, result, error] = [quoted(names.status), quoted(names.result), quoted(names.error)]
  const key = names.key.map(quoted).join(', ')
  const place = placeColumns(names).map(quoted).join(', ')
  // Sweeps of one table that differ in their status or their order have indexes of their own.
  const of = names.status === 'status' ? 'sweep' : `sweep_${names.status}`
  const indexes: Index[] = [
    { name: `${of}_status`, on: `(${status}, ${key})` },
    { name: [of, 'pending', ...names.order].join('_'), on: `(${place}) WHERE ${status} = 'pending'` },
  ]
  const concurrently = partitions.length > 0 ? '' : ' CONCURRENTLY'
  return {
    up: [
      [
        `ALTER TABLE ${table}`,
        `  ADD COLUMN IF NOT EXISTS ${status} text NOT NULL DEFAULT 'pending',`,
        `  ADD COLUMN IF NOT EXISTS ${result} text,`,
        `  ADD COLUMN IF NOT EXISTS ${error} text`,
      ].join('\n'),
      ...indexes.flatMap((index) => built(index, names, partitions)),
    ],
    down: [
      ...indexes.map(({ name }) => `DROP INDEX${concurrently} IF EXISTS ${indexOf(names, name)}`).reverse(),
      [
        `ALTER TABLE ${table}`,
        `  DROP COLUMN IF EXISTS ${error},`,
        `  DROP COLUMN IF EXISTS ${result},`,
        `  DROP COLUMN IF EXISTS ${status}`,
      ].join('\n'),
    ],
  }
}

interface Index {
  name: string
  /** Its columns and its condition. */
  on: string
}

function built({ name, on }: Index, whole: Named, partitions: readonly Named[]): string[] {
  const create = (table: Named) =>
    `CREATE INDEX CONCURRENTLY IF NOT EXISTS ${named(table, name)} ON ${tableName(table)} ${on}`
  if (partitions.length === 0) return [create(whole)]
  return [
    `CREATE INDEX IF NOT EXISTS ${named(whole, name)} ON ONLY ${tableName(whole)} ${on}`,
    ...partitions.map(create),
    ...partitions.map(
      (part) => `ALTER INDEX ${indexOf(whole, name)} ATTACH PARTITION ${indexOf(part, name)}`,
    ),
  ]
}

/** The index's name with its schema, which is the table's. */
function indexOf(table: Named, name: string): string {
  return table.schema === undefined ? named(table, name) : `${quoted(table.schema)}.${named(table, name)}`
}

const LONGEST_NAME = 63

function named({ table }: Named, what: string): string {
  const name = `${table}_${what}`
  if (Buffer.byteLength(name) <= LONGEST_NAME) return quoted(name)
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 8)
  let short = name
  while (Buffer.byteLength(`${short}_${hash}`) > LONGEST_NAME) short = short.slice(0, -1)
  return quoted(`${short}_${hash}`)
}
