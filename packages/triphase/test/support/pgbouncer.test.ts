import { randomBytes } from 'node:crypto'
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

  test('lets roles in while notifications arrive on connections that others have listened on', async () => {
    const pgbouncer = await startPgBouncer(testUrl())
    const direct = new pg.Client(testUrl())
    const listener = new pg.Client(pgbouncer.url(testUrl()))
    await Promise.all([direct.connect(), listener.connect()])
    let over = false
    const notifying = (async () => {
      while (!over) await direct.query('NOTIFY pooled')
    })()
    const roles = new pg.Client(testUrl())
    await roles.connect()
    await listener.query('LISTEN pooled')
    for (let index = 0; index < 10; index++) {
      const name = `late_${randomBytes(4).toString('hex')}`
      await roles.query(`CREATE ROLE ${name} LOGIN PASSWORD 'late'`)
      const url = Object.assign(new URL(pgbouncer.url(testUrl())), { username: name, password: 'late' })
      const client = new pg.Client(url.href)
      await client.connect()
      await client.end()
      await roles.query(`DROP ROLE ${name}`)
    }
    over = true
    await notifying
    for (const client of [direct, listener, roles]) await client.end()
    await pgbouncer.dispose()
  })
})
