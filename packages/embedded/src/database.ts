import { setTimeout as delay } from 'node:timers/promises'
import { countRows, type Server, ServerRefusal } from './simple-query.ts'

const BUSY_MILLISECONDS = 10_000
const POLL_MILLISECONDS = 100
const TOO_MANY_CONNECTIONS = '53300'
const CANNOT_CONNECT_NOW = '57P03'
const DUPLICATE_DATABASE = '42P04'

/** Makes the database when it is missing; and shows that the server answers to this password. */
export async function ensureDatabase(server: Server, database: string): Promise<void> {
  const deadline = Date.now() + BUSY_MILLISECONDS
  for (;;) {
    try {
      return await createIfMissing(server, database)
    } catch (error) {
      const isBusy = isRefusal(error, TOO_MANY_CONNECTIONS, CANNOT_CONNECT_NOW)
      if (!isBusy || Date.now() > deadline) throw error
      await delay(POLL_MILLISECONDS)
    }
  }
}

async function createIfMissing(server: Server, database: string): Promise<void> {
  const literal = database.replaceAll("'", "''")
  if ((await countRows(server, `SELECT 1 FROM pg_database WHERE datname = '${literal}'`)) > 0) return
  const identifier = database.replaceAll('"', '""')
  try {
    await countRows(server, `CREATE DATABASE "${identifier}"`)
  } catch (error) {
    // Another client of the server was faster.
    if (!isRefusal(error, DUPLICATE_DATABASE)) throw error
  }
}

function isRefusal(error: unknown, ...sqlStates: string[]): boolean {
  return error instanceof ServerRefusal && sqlStates.includes(error.sqlState)
}
