import { readdir, readFile } from 'node:fs/promises'
import type pg from 'pg'

const folder = new URL('../migrations/', import.meta.url)

/** Brings Scout's own schema up to date; several processes may do so at once. */
export async function migrateScout(pool: pg.Pool): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    await client.query(`SELECT pg_advisory_xact_lock(hashtext('scout.migration'))`)
    await client.query('CREATE SCHEMA IF NOT EXISTS scout')
    await client.query('CREATE TABLE IF NOT EXISTS scout.migration (name text PRIMARY KEY)')
    const { rows } = await client.query<{ name: string }>('SELECT name FROM scout.migration')
    for (const name of names.filter((name) => !rows.some((row) => row.name === name))) {
      await client.query(await readFile(new URL(name, folder), 'utf8'))
      await client.query('INSERT INTO scout.migration VALUES ($1)', [name])
    }
    await client.query('COMMIT')
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {})
    throw error
  } finally {
    client.release()
  }
}
