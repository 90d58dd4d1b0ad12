import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedPostgres } from '@triphase/embedded'
import { NO_PGBOUNCER, startPgBouncer } from './pgbouncer.ts'
import { NO_REDIS } from './redis.ts'

/**
 * One real server for all test files, and one PgBouncer in front of it for the second run of the engine's tests; each
 * file takes a schema of its own. TRIPHASE_TEST_URL set: that server. Each project of the run comes here: the first starts.
 */
export default async function setup(): Promise<() => Promise<void>> {
  const ends = [await setupServer(), await setupPooler()]
  return async () => {
    for (const end of ends.reverse()) await end()
  }
}

async function setupServer(): Promise<() => Promise<void>> {
  if (process.env.TRIPHASE_TEST_URL) return async () => {}
  for (const reason of [NO_PGBOUNCER, NO_REDIS])
    if (reason) console.warn(`${reason}: the tests that need it are skipped.`)
  const directory = await mkdtemp(join(tmpdir(), 'triphase-test-'))
  const server = await startEmbeddedPostgres({
    directory,
    settings: { max_connections: '300', fsync: 'off' },
  })
  process.env.TRIPHASE_TEST_URL = server.url
  return async () => {
    await server.stop()
    await rm(directory, { recursive: true, force: true })
  }
}

async function setupPooler(): Promise<() => Promise<void>> {
  if (process.env.TRIPHASE_TEST_POOLER_URL) return async () => {}
  if (NO_PGBOUNCER) return async () => {}
  const url = process.env.TRIPHASE_TEST_URL as string
  const pgbouncer = await startPgBouncer(url, { settings: { default_pool_size: 60 } })
  process.env.TRIPHASE_TEST_POOLER_URL = pgbouncer.url(url)
  return () => pgbouncer.dispose()
}
