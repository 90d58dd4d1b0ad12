import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type EmbeddedPostgres, startEmbeddedPostgres } from '@triphase/embedded'
import pg from 'pg'
import { serverCpuSeconds } from './process-times.ts'

/** No checkpoint may fall into one measurement and not into the next: each begins with one, and has room until its end. */
export const SETTINGS: Readonly<Record<string, string>> = {
  shared_buffers: '512MB',
  max_connections: '200',
  synchronous_commit: 'on',
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
}

interface Found {
  version: string
  pid: number
}

/** The Postgres of one run of a benchmark: in a folder of its own, gone with it afterwards. */
export class Server {
  /** One connection to a database that nobody measures. */
  readonly control: pg.Pool
  readonly version: string
  readonly #postgres: EmbeddedPostgres
  readonly #folder: string
  readonly #controlPid: number
  #databases = 0

  private constructor(postgres: EmbeddedPostgres, folder: string, control: pg.Pool, found: Found) {
    this.#postgres = postgres
    this.#folder = folder
    this.#controlPid = found.pid
    this.control = control
    this.version = found.version
  }

  static async start(settings: Record<string, string> = {}): Promise<Server> {
    const folder = await mkdtemp(join(tmpdir(), 'triphase-bench-'))
    const directory = join(folder, 'postgres')
    const postgres = await startEmbeddedPostgres({ directory, settings: { ...SETTINGS, ...settings } })
    const control = new pg.Pool({
      connectionString: postgres.url,
      application_name: 'bench-control',
      max: 1,
      idleTimeoutMillis: 0,
    })
    // The server may end it before its own goodbye is through; whoever still needs it learns that from the next query.
    control.on('error', () => {})
    const { rows } = await control.query<Found>(
      `SELECT current_setting('server_version') AS version, pg_backend_pid() AS pid`,
    )
    return new Server(postgres, folder, control, rows[0] as Found)
  }

  /** CPU seconds of the server so far, without those of the control connection; NaN where the system does not tell. */
  cpuSeconds(): number {
    return serverCpuSeconds(this.#controlPid)
  }

  /** A new, empty database; its name is the last part of the URL. */
  async createDatabase(): Promise<string> {
    const name = `bench_${++this.#databases}`
    await this.control.query(`CREATE DATABASE ${name}`)
    await this.control.query('CHECKPOINT')
    const url = new URL(this.#postgres.url)
    url.pathname = `/${name}`
    return url.href
  }

  async dropDatabase(url: string): Promise<void> {
    await this.control.query(`DROP DATABASE ${databaseOf(url)} WITH (FORCE)`)
  }

  async stop(): Promise<void> {
    await this.control.end()
    await this.#postgres.stop()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

export function databaseOf(url: string): string {
  return new URL(url).pathname.slice(1)
}
