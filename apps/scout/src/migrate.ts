import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'
import { pgTransactor } from 'triphase'

const folder = new URL('../migrations/', import.meta.url)

/** `NO_PERMISSION`: the role may not make Scout's tables; the message says what to grant. */
class MigrationError extends Error {
  readonly code = 'NO_PERMISSION'

  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'MigrationError'
  }
}

/**
 * Brings Scout's own schema up to date; several processes may do so at once.
 *
 * @throws `NO_PERMISSION` when the role may not make the tables.
 */
export async function migrateScout(pool: pg.Pool): Promise<void> {
  await pgTransactor(pool)
    .transaction(migrateIn)
    .catch((error) => {
      throw explained(error)
    })
}

async function migrateIn(client: pg.PoolClient): Promise<void> {
  await client.query(`SELECT pg_advisory_xact_lock(hashtext('scout.migration'))`)
  // CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even where the schema exists.
  const { rowCount } = await client.query(`SELECT FROM pg_namespace WHERE nspname = 'scout'`)
  if (rowCount === 0) await client.query('CREATE SCHEMA scout')
  await client.query('CREATE TABLE IF NOT EXISTS scout.migration (name text PRIMARY KEY)')
  const { rows } = await client.query<{ name: string }>('SELECT name FROM scout.migration')
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  for (const name of names.filter((name) => !rows.some((row) => row.name === name))) {
    await client.query(await readFile(new URL(name, folder), 'utf8'))
    await client.query('INSERT INTO scout.migration VALUES ($1)', [name])
  }
}

function explained(error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: string }
  if (code !== '42501') return error
  return new MigrationError(
    `The database refused access to the schema scout: ${message}. Grant the role CREATE on the database, or create the schema and make the role its owner.`,
    { cause: error },
  )
}
