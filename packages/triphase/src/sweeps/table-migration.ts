import { sweepTableMigration } from '../store/sweep-migration.ts'
import type { TableNames } from '../store/sweep-table.ts'

/** What a table's migration is written for. */
export type MigrationFormat = 'sql' | 'kysely' | 'knex' | 'drizzle'

const NOTES = [
  'Adds what a sweep needs: status, result and error of each record, and the indexes that keep pages flat.',
  'No row is rewritten: existing rows are pending by the default of the new column.',
  'Not in a transaction: indexes are built concurrently, so that writers are never locked out.',
  'The change of the table waits for transactions that are open on the table, and others wait behind it: give it a lock_timeout',
  'and try again when it runs out. An index whose building was cut off is INVALID: drop it and run this again.',
]

/** The text of a migration that makes a table fit for a sweep. */
export function tableMigration(
  names: TableNames,
  format: MigrationFormat,
  partitions: readonly Pick<TableNames, 'schema' | 'table'>[] = [],
): string {
  const { up, down } = sweepTableMigration(names, partitions)
  switch (format) {
    case 'sql':
      return `${comment('--')}\n\n${up.map((statement) => `${statement};`).join('\n\n')}\n`
    case 'drizzle':
      // One migration of drizzle-kit: an empty file of `drizzle-kit generate --custom` takes this text.
      return [
        comment('--'),
        '-- drizzle-kit migrates in a transaction: run the statements after the first by themselves (psql) where that refuses them.',
        `${up.map((statement) => `${statement};`).join('\n--> statement-breakpoint\n')}\n`,
      ].join('\n')
    case 'kysely':
      return [
        comment('//'),
        '// Run it with `disableTransactions: true` of the Migrator.',
        "import { type Kysely, sql } from 'kysely'",
        '',
        'export async function up(db: Kysely<unknown>): Promise<void> {',
        ...up.map((statement) => `  await sql.raw(${literal(statement)}).execute(db)`),
        '}',
        '',
        'export async function down(db: Kysely<unknown>): Promise<void> {',
        ...down.map((statement) => `  await sql.raw(${literal(statement)}).execute(db)`),
        '}\n',
      ].join('\n')
    case 'knex':
      return [
        comment('//'),
        "import type { Knex } from 'knex'",
        '',
        'export const config = { transaction: false }',
        '',
        'export async function up(knex: Knex): Promise<void> {',
        ...up.map((statement) => `  await knex.raw(${literal(bindable(statement))})`),
        '}',
        '',
        'export async function down(knex: Knex): Promise<void> {',
        ...down.map((statement) => `  await knex.raw(${literal(bindable(statement))})`),
        '}\n',
      ].join('\n')
  }
}

function comment(mark: string): string {
  return NOTES.map((note) => `${mark} ${note}`).join('\n')
}

function literal(statement: string): string {
  return `\`${statement.replaceAll(/[\\`]|\$\{/g, '\\$&')}\``
}

/** Knex takes a question mark for a value to be bound. */
function bindable(statement: string): string {
  return statement.replaceAll('?', '\\?')
}
