import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest'
import { testDatabaseUrl } from './database-url.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from './fault-proxy.ts'
import { eventually } from './processes.ts'

export type ProxiedClientConfig = pg.ClientConfig & { pipeline?: boolean }

export interface ProxiedDatabase {
  readonly proxy: FaultProxy
  /** Past the proxy. */
  readonly direct: pg.Pool
  /** Connects through the proxy. */
  client(config?: ProxiedClientConfig): Promise<pg.Client>
  /** A client in a transaction that has inserted this row. */
  inTransaction(row: string, config?: ProxiedClientConfig): Promise<pg.Client>
  insert(client: pg.Client, row: string): Promise<unknown>
  /** The rows that are committed, once no session of the clients is left on the server. */
  rowsAfterSessions(): Promise<string[]>
  rows(): Promise<string[]>
}

/** For the tests of the proxy itself: a table of its own, a new proxy for each test. */
export function proxiedDatabase(): ProxiedDatabase {
  const id = randomBytes(4).toString('hex')
  const table = `fault_proxy_${id}`
  const url = testDatabaseUrl()
  const direct = new pg.Pool({ connectionString: url, max: 2, application_name: `direct ${id}` })
  const clients = new Set<pg.Client>()
  let proxy: FaultProxy

  beforeAll(() => direct.query(`CREATE TABLE ${table} (name text PRIMARY KEY)`))
  beforeEach(async () => {
    proxy = await startFaultProxy({ ...serverAddress(url), log: true })
    await direct.query(`DELETE FROM ${table}`)
  })
  afterEach(async () => {
    await proxy.close()
    await Promise.all([...clients].map((client) => client.end().catch(() => {})))
    clients.clear()
    await sessionsEnded()
  })
  afterAll(async () => {
    await direct.query(`DROP TABLE ${table}`)
    await direct.end()
  })

  async function sessionsEnded(): Promise<void> {
    await eventually(async () => {
      const sessions = 'SELECT 1 FROM pg_stat_activity WHERE application_name LIKE $1'
      return (await direct.query(sessions, [`% via ${id}`])).rowCount === 0
    })
  }

  const database: ProxiedDatabase = {
    get proxy() {
      return proxy
    },
    direct,
    async client(config = {}) {
      const name = `${config.application_name ?? 'client'} via ${id}`
      const client = new pg.Client({
        connectionString: proxy.url(url),
        ...config,
        application_name: name,
      })
      client.on('error', () => {})
      clients.add(client)
      await client.connect()
      return client
    },
    async inTransaction(row, config) {
      const client = await database.client(config)
      await client.query('BEGIN')
      await database.insert(client, row)
      return client
    },
    insert: (client, row) => client.query(`INSERT INTO ${table} (name) VALUES ($1)`, [row]),
    async rows() {
      const { rows } = await direct.query<{ name: string }>(`SELECT name FROM ${table} ORDER BY name`)
      return rows.map(({ name }) => name)
    },
    async rowsAfterSessions() {
      await sessionsEnded()
      return database.rows()
    },
  }
  return database
}

/** The error reaches the client before the status does, perhaps in a packet of its own. */
export async function expectStatus(client: pg.Client, status: 'I' | 'T' | 'E'): Promise<void> {
  await eventually(() => expect(client.getTransactionStatus()).toBe(status))
}
