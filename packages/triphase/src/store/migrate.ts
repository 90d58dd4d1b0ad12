import { setTimeout as delay } from 'node:timers/promises'
import { isSchemaName, SCHEMA_RULE } from '../config.ts'
import { TriphaseError } from '../errors.ts'
import { type Database, type EngineTransaction, inSchema } from './database.ts'
import { MIGRATIONS, type Migration } from './migrations.gen.ts'
import { makePartitions } from './partitions.ts'

/** The version of the schema that this version of the engine was written for. */
export const SCHEMA_VERSION: number = (MIGRATIONS.at(-1) as Migration).version

const SCHEMA_EXISTS = /* sql */ `SELECT FROM pg_namespace WHERE nspname = $1`
const LEDGER_EXISTS = /* sql */ `SELECT to_regclass($1) IS NOT NULL AS exists`
const CREATE_LEDGER = /* sql */ `
CREATE TABLE IF NOT EXISTS triphase.migration (
  version integer PRIMARY KEY,
  name text NOT NULL,
  min_compatible integer NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)`
const LEDGER = /* sql */ `
SELECT max(version) AS version, max(min_compatible) AS min_compatible FROM triphase.migration`
const RECORD = /* sql */ `
INSERT INTO triphase.migration (version, name, min_compatible) VALUES ($1, $2, $3)`
// Tried, not waited for: a backend that waits for an advisory lock holds a snapshot, which stops CREATE INDEX
// CONCURRENTLY for ever.
const TRY_LOCK = /* sql */ `SELECT pg_try_advisory_xact_lock(hashtext('triphase migration'), hashtext($1)) AS locked`

interface LedgerState {
  version: number
  minCompatible: number
}

const LOCK_WAIT_MS = 120_000

/**
 * Brings the schema up to date: each missing migration in a transaction of its own. Safe to call from several
 * processes at once; does nothing when there is nothing to do.
 *
 * @returns the versions that were applied.
 * @throws {TriphaseError} `NO_PERMISSION`, `SCHEMA_TOO_NEW`, `MIGRATION_LOCKED`.
 */
export async function migrate(database: Database): Promise<number[]> {
  const applied: number[] = []
  try {
    for (const migration of MIGRATIONS)
      if (await applyIfMissing(database, migration)) applied.push(migration.version)
    // None is dropped: whoever migrates (a web server, a deploy) may not know how long the workers keep history.
    await makePartitions(database)
  } catch (error) {
    throw migrationFailure(error, database.schema)
  }
  await requireCompatible(database)
  return applied
}

async function applyIfMissing(database: Database, migration: Migration): Promise<boolean> {
  const state = await ledgerState(database)
  if (state && state.version >= migration.version) return false
  const deadline = Date.now() + LOCK_WAIT_MS
  while (Date.now() < deadline) {
    const outcome = await database.transaction((transaction) =>
      applyLocked(transaction, database.schema, migration),
    )
    if (outcome !== 'locked') return outcome === 'applied'
    await delay(100 + Math.random() * 100)
  }
  throw new TriphaseError(
    'MIGRATION_LOCKED',
    `Another process has been migrating the schema ${database.schema} for ${LOCK_WAIT_MS / 1000} s. Let it finish, or end it, and try again.`,
  )
}

async function applyLocked(
  { query }: EngineTransaction,
  schema: string,
  migration: Migration,
): Promise<'locked' | 'applied' | 'present'> {
  const [lock] = await query<{ locked: boolean }>(TRY_LOCK, [schema])
  if (!lock?.locked) return 'locked'
  // CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even where the schema exists.
  if ((await query(SCHEMA_EXISTS, [schema])).length === 0) await query(`CREATE SCHEMA "${schema}"`)
  await query(CREATE_LEDGER)
  const [ledger] = await query<{ version: number | null }>(LEDGER)
  if ((ledger?.version ?? 0) >= migration.version) return 'present'
  await query(migration.sql)
  await query(RECORD, [migration.version, migration.name, migration.minCompatible])
  return 'applied'
}

async function ledgerState(database: Database): Promise<LedgerState | null> {
  const [found] = await database.query<{ exists: boolean }>(LEDGER_EXISTS, [`${database.schema}.migration`])
  if (!found?.exists) return null
  const [row] = await database.query<{ version: number | null; min_compatible: number | null }>(LEDGER)
  return row?.version ? { version: row.version, minCompatible: row.min_compatible ?? 1 } : null
}

/**
 * Checks that this version of the engine can work with the schema as it is. A newer schema is fine as long as it
 * says so (`min_compatible`), so that old and new processes can run side by side during a deploy.
 *
 * @throws {TriphaseError} `MIGRATION_NEEDED`, `SCHEMA_TOO_NEW`, `NO_PERMISSION`.
 */
export async function requireCompatible(database: Database): Promise<void> {
  const state = await ledgerState(database).catch((error: unknown) => {
    throw schemaFailure(error, database.schema)
  })
  if (!state || state.version < SCHEMA_VERSION) {
    throw new TriphaseError(
      'MIGRATION_NEEDED',
      `The schema ${database.schema} is at version ${state?.version ?? 0}, and this version of Triphase needs ${SCHEMA_VERSION}. Call engine.migrate(), or run the SQL that migrationSql() prints.`,
    )
  }
  if (state.minCompatible > SCHEMA_VERSION) {
    throw new TriphaseError(
      'SCHEMA_TOO_NEW',
      `The schema ${database.schema} is at version ${state.version}, which needs a Triphase that knows version ${state.minCompatible} or later; this one knows ${SCHEMA_VERSION}. Update this process.`,
    )
  }
}

/**
 * All migrations from `after` (exclusive) on as one SQL script, for teams that run their own migrations.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS` for a schema that no engine can have.
 * @example
 * writeFileSync('migrations/20260101_triphase.sql', migrationSql({ schema: 'triphase' }))
 */
export function migrationSql(options: { schema?: string; after?: number } = {}): string {
  const schema = options.schema ?? 'triphase'
  if (!isSchemaName(schema)) throw new TriphaseError('INVALID_OPTIONS', `schema: ${SCHEMA_RULE}`)
  const { after = 0 } = options
  const missing = MIGRATIONS.filter(({ version }) => version > after)
  // Also where the schema exists, to make it needs a right on the database.
  const beginning = ['CREATE SCHEMA IF NOT EXISTS triphase;', `${CREATE_LEDGER.trim()};`]
  const record = ({ version, name, minCompatible }: Migration) =>
    `INSERT INTO triphase.migration (version, name, min_compatible) VALUES (${version}, '${name}', ${minCompatible});`
  const parts = [
    'BEGIN;',
    ...(after === 0 ? beginning : []),
    ...missing.flatMap((migration) => [migration.sql.trim(), record(migration)]),
    'COMMIT;',
  ]
  return `${inSchema(parts.join('\n\n'), schema).replace('SCHEMA IF NOT EXISTS triphase;', `SCHEMA IF NOT EXISTS "${schema}";`)}\n`
}

/** What a statement of the engine failed of where its tables are not there, or not for this role, with the remedy. */
export function schemaFailure(error: unknown, schema: string): unknown {
  // A schema of the application's may throw anything.
  const { code, message } = (error ?? {}) as { code?: unknown; message?: string }
  // The schema, a table, a function.
  if (code === '3F000' || code === '42P01' || code === '42883') {
    return new TriphaseError(
      'MIGRATION_NEEDED',
      `The schema ${schema} does not have what this version of Triphase needs: ${message}. Call engine.migrate(), or run the SQL that migrationSql() prints.`,
      { cause: error },
    )
  }
  if (code !== '42501') return error
  return new TriphaseError(
    'NO_PERMISSION',
    `The database refused access to the schema ${schema}: ${message}. Grant the role USAGE on the schema and on its sequences, and SELECT, INSERT, UPDATE and DELETE on its tables (docs/operating.md, Rights).`,
    { cause: error },
  )
}

function migrationFailure(error: unknown, schema: string): unknown {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code !== '42501') return error
  return new TriphaseError(
    'NO_PERMISSION',
    `The database refused access to the schema ${schema}: ${(error as Error).message}. Grant the role CREATE on the database (or create the schema and make the role its owner), or run the SQL that migrationSql() prints as an administrator.`,
    { cause: error },
  )
}
