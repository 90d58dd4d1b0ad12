import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { testUrl } from './database-url.ts'
import { NO_PGBOUNCER, startPgBouncer } from './pgbouncer.ts'

describe.skipIf(NO_PGBOUNCER)('a PgBouncer for tests', () => {
  test('shares server connections', async () => {
    const pgbouncer = await startPgBouncer(testUrl())
    const clients = [1, 2].map(() => new pg.Client(pgbouncer.url(testUrl())))
    const pids: number[] = []
    for (const client of clients) {
      await client.connect()
      pids.push((await client.query('SELECT pg_backend_pid() AS pid')).rows[0].pid)
    }
    expect(pids[0]).toBe(pids[1])
    for (const client of clients) await client.end()
    await pgbouncer.dispose()
  })
})
