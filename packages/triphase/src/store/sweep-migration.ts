import { placeColumns, quoted, type TableNames, tableName } from './sweep-table.ts'

/** The statements that make a table fit for a sweep, each to be run outside a transaction. */
export interface SweepTableMigration {
  up: readonly string[]
  down: readonly string[]
}

/**
 * A column with a constant default is a change of the catalog alone (PostgreSQL 11 and later): no row is written, and
 * existing rows are pending. Indexes are built concurrently, so that the table stays open to writers.
 */
export function sweepTableMigration(names: TableNames): SweepTableMigration {
  const table = tableName(names)
  const [status, result, error] = [quoted(names.status), quoted(names.result), quoted(names.error)]
  const key = names.key.map(quoted).join(', ')
  const place = placeColumns(names).map(quoted).join(', ')
  const inSchema = names.schema === undefined ? '' : `${quoted(names.schema)}.`
  const [byStatus, pending] = [
    indexName(names.table, 'sweep_status'),
    indexName(names.table, 'sweep_pending'),
  ]
  return {
    up: [
      [
        `ALTER TABLE ${table}`,
        `  ADD COLUMN IF NOT EXISTS ${status} text NOT NULL DEFAULT 'pending',`,
        `  ADD COLUMN IF NOT EXISTS ${result} text,`,
        `  ADD COLUMN IF NOT EXISTS ${error} text`,
      ].join('\n'),
      `CREATE INDEX CONCURRENTLY IF NOT EXISTS ${byStatus} ON ${table} (${status}, ${key})`,
      `CREATE INDEX CONCURRENTLY IF NOT EXISTS ${pending} ON ${table} (${place}) WHERE ${status} = 'pending'`,
    ],
    down: [
      `DROP INDEX CONCURRENTLY IF EXISTS ${inSchema}${pending}`,
      `DROP INDEX CONCURRENTLY IF EXISTS ${inSchema}${byStatus}`,
      [
        `ALTER TABLE ${table}`,
        `  DROP COLUMN IF EXISTS ${error},`,
        `  DROP COLUMN IF EXISTS ${result},`,
        `  DROP COLUMN IF EXISTS ${status}`,
      ].join('\n'),
    ],
  }
}

const LONGEST_NAME = 63

function indexName(table: string, what: string): string {
  let name = table
  while (Buffer.byteLength(`${name}_${what}`) > LONGEST_NAME) name = name.slice(0, -1)
  return quoted(`${name}_${what}`)
}
