import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { Database, inSchema, isConnectionFailure, isDataError } from '../../src/store/database.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { useSessions } from '../support/sessions.ts'

const bench = useEngines()
const sessions = useSessions(bench)

async function withDatabase(
  options: { url?: string; statementTimeoutMs?: number; acquireTimeoutMs?: number; size?: number },
  work: (database: Database) => Promise<void>,
): Promise<void> {
  const { url, schema } = bench.schema
  const defaults = {
    url,
    size: 1,
    applicationName: 'test',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  }
  const database = new Database(schema, { ...defaults, ...options })
  try {
    await work(database)
  } finally {
    await database.end()
  }
}

test('statements mean the configured schema', () => {
  expect(inSchema('SELECT triphase.job.id FROM triphase.job, other_triphase.job', 'x')).toBe(
    'SELECT "x".job.id FROM "x".job, other_triphase.job',
  )
})

test('values come as the engine expects them, whatever the application has set', async () => {
  pg.types.setTypeParser(20, () => 'changed by the application')
  try {
    const [row] = await bench.schema.database.query(`SELECT 9007199254740993::int8 AS int8, 7::int4 AS int4,
      true AS bool, 1.5::float8 AS float8, '{"a":1}'::json AS json, ARRAY['a,b', NULL] AS texts,
      timestamptz '2020-01-02 03:04:05.678+00' AS time, NULL::int8 AS nothing`)
    expect(row).toEqual({
      int8: '9007199254740993',
      int4: 7,
      bool: true,
      float8: 1.5,
      json: '{"a":1}',
      texts: ['a,b', null],
      time: new Date('2020-01-02T03:04:05.678Z'),
      nothing: null,
    })
  } finally {
    pg.types.setTypeParser(20, String)
  }
})

test('a connection that listens is told what arrives and its end, and stays open however rarely it is used', async () => {
  await withDatabase({}, async (database) => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    onTestFinished(() => void vi.useRealTimers())
    const told: string[] = []
    const listener = { notified: (payload: string) => told.push(payload), lost: () => told.push('lost') }
    await database.query('SELECT 1')
    const deafen = await database.listen('LISTEN told', listener)
    vi.advanceTimersByTime(600_000)
    expect(database.connections.open).toBe(1)
    await database.query(`SELECT pg_notify('told', 'first'), pg_notify('told', '')`)
    expect(told).toEqual(['first', ''])
    deafen()
    await database.query(`NOTIFY told, 'second'`)
    await database.listen('LISTEN told', listener)
    await database.query(`SELECT pg_terminate_backend(pg_backend_pid())`).catch(() => {})
    vi.useRealTimers()
    await eventually(() => expect(told.slice(2)).toContain('lost'))
    expect(new Set(told.slice(2))).toEqual(new Set(['lost']))
  })
})

test('a connection that leads to a server that only reads, since a failover, is not used again', async () => {
  await withDatabase({}, async (database) => {
    const write = () => database.query('UPDATE triphase.leader SET process_id = process_id')
    await database.query('SET default_transaction_read_only = on')
    const refused = write()
    await expect(refused).rejects.toMatchObject({ code: 'CONNECTION_FAILED', cause: { code: '25006' } })
    await expect(refused).rejects.toThrow(/takes no writes: cannot execute UPDATE .* lead to the primary/)
    await write()
  })
})

describe('a statement that takes too long', () => {
  test('is given up, cancelled on the server, and its connection is not used again', async () => {
    const holder = await sessions.open()
    await holder.begin()
    await holder.database.query('LOCK TABLE triphase.leader IN ACCESS EXCLUSIVE MODE')
    await withDatabase({ statementTimeoutMs: 150 }, async (database) => {
      const [backend] = await database.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      const waiting = database.query('SELECT FROM triphase.leader')
      await expect(waiting).rejects.toMatchObject({ code: 'STATEMENT_TIMEOUT' })
      await expect(waiting).rejects.toThrow(/did not answer within 150 ms: SELECT FROM .*leader/)
      const alive = 'SELECT FROM pg_stat_activity WHERE pid = $1'
      await eventually(async () => (await bench.schema.database.query(alive, [backend!.pid])).length === 0)
      const [next] = await database.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      expect(next!.pid).not.toBe(backend!.pid)
    })
  })

  test('is cancelled over a Unix socket too', async (context) => {
    const folder = await mkdtemp(join(tmpdir(), 'triphase-socket-'))
    const address = serverAddress(testDatabaseUrl())
    const relay = createServer((client) => {
      const server = connect(address)
      for (const [from, to] of [
        [client, server],
        [server, client],
      ] as const)
        from.on('error', () => to.destroy()).pipe(to)
    })
    context.onTestFinished(async () => {
      relay.close()
      await rm(folder, { recursive: true })
    })
    await once(relay.listen(join(folder, '.s.PGSQL.5432')), 'listening')
    const url = new URL(testDatabaseUrl())
    url.searchParams.set('host', folder)
    url.port = '5432'
    await withDatabase({ url: url.href, statementTimeoutMs: 150 }, async (database) => {
      const [backend] = await database.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      await expect(database.query('SELECT pg_sleep(60)')).rejects.toMatchObject({ code: 'STATEMENT_TIMEOUT' })
      const sleeps = `SELECT FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%pg_sleep%' AND state = 'active'`
      await eventually(async () => (await bench.schema.database.query(sleeps, [backend!.pid])).length === 0)
    })
  })

  test('counts as a failure that may pass', async () => {
    await withDatabase({ statementTimeoutMs: 50 }, async (database) => {
      const error = await database.query('SELECT pg_sleep(10)').catch((thrown: unknown) => thrown)
      expect(isConnectionFailure(error)).toBe(true)
      expect(isDataError(error)).toBe(false)
    })
  })
})

describe('transaction', () => {
  test('commits what it did, and rolls back when it throws', async () => {
    await withDatabase({}, async (database) => {
      const insert = `INSERT INTO triphase.queue (name) VALUES ($1)`
      expect(
        await database.transaction(async ({ query }) => {
          await query(insert, ['kept'])
          return 'value'
        }),
      ).toBe('value')
      const failed = database.transaction(async ({ query }) => {
        await query(insert, ['gone'])
        throw new Error('no')
      })
      await expect(failed).rejects.toThrow('no')
      expect(await database.query('SELECT name FROM triphase.queue')).toEqual([{ name: 'kept' }])
    })
  })

  test('that fails in the middle leaves its connection usable', async () => {
    await withDatabase({}, async (database) => {
      const failed = database.transaction(({ query }) => query('SELECT 1 / 0'))
      await expect(failed).rejects.toThrow(/division by zero/)
      expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }])
    })
  })
})

describe('a connection that is gone', () => {
  test('is a CONNECTION_FAILED that says what to do, and the next statement gets another', async () => {
    const { url } = bench.schema
    const proxy = await startFaultProxy(serverAddress(url))
    await withDatabase({ url: proxy.url(url) }, async (database) => {
      proxy.onStatement(/cut me/, 'cut-before')
      await expect(database.query('SELECT 1 AS "cut me"')).rejects.toMatchObject({
        code: 'CONNECTION_FAILED',
      })
      expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }])
      proxy.cutAll()
      await eventually(() => database.connections.open === 0)
      expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }])
    })
    await proxy.close()
  })

  test('a server that is not there is one too', async () => {
    await withDatabase({ url: 'postgres://user@127.0.0.1:1/nothing' }, async (database) => {
      const error = await database.query('SELECT 1').catch((thrown: unknown) => thrown)
      expect(error).toMatchObject({
        code: 'CONNECTION_FAILED',
        message: expect.stringMatching(/cannot be reached.*Check/),
      })
    })
  })
})

test('no connection in time is a CONNECTION_FAILED', async () => {
  await withDatabase({ acquireTimeoutMs: 50 }, async (database) => {
    const gate = Promise.withResolvers<void>()
    const holding = database.transaction(() => gate.promise)
    await expect(database.query('SELECT 1')).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
    gate.resolve()
    await holding
  })
})

test('holds and waits are reported', async () => {
  const { url, schema } = bench.schema
  const held: [number, number][] = []
  const options = {
    url,
    size: 1,
    applicationName: 'test',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  }
  const database = new Database(schema, options, undefined, (waitMs, holdMs) => held.push([waitMs, holdMs]))
  const slow = database.query('SELECT pg_sleep(0.08)')
  const waiting = database.query('SELECT 1')
  await Promise.all([slow, waiting])
  await database.end()
  expect(held).toHaveLength(2)
  expect(held[0]![1]).toBeGreaterThan(70)
  expect(held[1]![0]).toBeGreaterThan(70)
})

test.each([
  ['08006', true, false],
  ['57P01', true, false],
  ['28P01', true, false],
  ['53300', true, false],
  ['25006', true, false],
  ['CERT_HAS_EXPIRED', true, false],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', true, false],
  ['ERR_TLS_CERT_ALTNAME_INVALID', true, false],
  ['22P02', false, true],
  ['22003', false, true],
  ['23505', false, true],
  ['42601', false, false],
  ['40P01', false, false],
  ['ECONNREFUSED', true, false],
])('an error with code %s: connection failure %s, data error %s', (code, connection, data) => {
  const error = Object.assign(new Error('x'), { code })
  expect([isConnectionFailure(error), isDataError(error)]).toEqual([connection, data])
})

test('values that make a longer text than JavaScript has are a data error', async () => {
  const long = 'x'.repeat(200_000_000)
  await withDatabase({}, async (database) => {
    const error = await database.query('SELECT $1::text[]', [[long, long, long]]).catch((thrown) => thrown)
    expect(isDataError(error)).toBe(true)
    expect(await database.query('SELECT 1 AS one')).toEqual([{ one: 1 }])
  })
})
