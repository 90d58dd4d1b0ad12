import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { Child } from './child.ts'
import { connected, OWN_CONNECTIONS } from './database.ts'
import { databaseOf, type Server } from './server.ts'
import { type PgBouncerOptions, SideServer } from './side-server.ts'

const CONNECTED = `
SELECT pid FROM pg_stat_activity
WHERE datname = $1 AND application_name <> $2 AND backend_type = 'client backend'`

/** Where one measurement takes place: a database of its own, and the processes that work on it. */
export class Stage {
  readonly url: string
  readonly database: string
  readonly server: Server
  /** What is measured in place of Postgres. */
  redis: SideServer | undefined
  readonly #sideServers: SideServer[] = []
  readonly #children: Child[] = []
  readonly #clients: pg.Client[] = []

  private constructor(server: Server, url: string) {
    this.server = server
    this.url = url
    this.database = databaseOf(url)
  }

  static async open(server: Server): Promise<Stage> {
    return new Stage(server, await server.createDatabase())
  }

  /** Starts a program as a process of its own. */
  start(program: URL, order: unknown, flags: readonly string[] = []): Child {
    const child = new Child(program, order, flags)
    this.#children.push(child)
    return child
  }

  async startRedis(): Promise<SideServer> {
    this.redis = await SideServer.redis()
    this.#sideServers.push(this.redis)
    return this.redis
  }

  /** Starts a PgBouncer before the stage's database; its URL leads through it. */
  async startPgBouncer(options?: PgBouncerOptions): Promise<SideServer> {
    const pooler = await SideServer.pgBouncer(this.url, options)
    this.#sideServers.push(pooler)
    return pooler
  }

  /** A connection of the benchmark's own to the database, closed with the stage or before. */
  async connect(): Promise<pg.Client> {
    const client = await connected(this.url)
    this.#clients.push(client)
    return client
  }

  /** One statement on a connection of its own. */
  async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const client = await connected(this.url)
    try {
      return (await client.query<Row>(text, values as unknown[])).rows
    } finally {
      await client.end()
    }
  }

  /** Resolves when only the benchmark is connected any more: a connection adds its counts to the statistics when it ends. */
  async deserted(): Promise<void> {
    const { control } = this.server
    while ((await control.query(CONNECTED, [this.database, OWN_CONNECTIONS])).rows.length > 0) await delay(5)
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.kill().catch(() => {})))
    await Promise.all(this.#clients.map((client) => client.end().catch(() => {})))
    await Promise.all(this.#sideServers.map((server) => server.stop()))
    await this.server.dropDatabase(this.url)
  }
}
