import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { serverAddress } from './fault-proxy.ts'
import { findProgram, freePort, reasonToSkip, ServerProgram } from './server-program.ts'

const PROGRAM = findProgram('pgbouncer')

/** Why there is no PgBouncer for the tests here; undefined when there is one. */
export const NO_PGBOUNCER: string | undefined = reasonToSkip(
  PROGRAM,
  'PgBouncer is not installed (Debian: apt-get install -y pgbouncer)',
)

/** A real PgBouncer in front of a server. */
export interface PgBouncer {
  /** The same URL, through this PgBouncer; `alias`: by another of its names for the database, which has a pool of its own. */
  url(baseUrl: string, alias?: string): string
  /** Everything that it has logged since its last start. */
  readonly log: string
  /** Ends it at once, as an update of the package does, and starts it again on the same port. */
  restart(): Promise<void>
  /** Ends it at once: every connection through it is closed. */
  stop(): Promise<void>
  /** As `stop`, without a chance to say anything. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Ends it and removes its folder. */
  dispose(): Promise<void>
}

export interface PgBouncerOptions {
  /** Of the section `[pgbouncer]`, instead of or besides the tests' own. */
  settings?: Readonly<Record<string, string | number>>
  /** Other names for databases: `alias: 'dbname=app'` and more connection parameters. */
  aliases?: Readonly<Record<string, string>>
}

const START_TRIES = 5

/**
 * Starts a PgBouncer in transaction mode in front of the server of a URL, whose role may make others. Logins are checked
 * against the server's own passwords, so roles made later can log in too.
 *
 * @example
 * const pgbouncer = await startPgBouncer(directTestUrl(), { settings: { default_pool_size: 2 } })
 * const engine = createEngine({ url: pgbouncer.url(directTestUrl()), ... })
 */
export async function startPgBouncer(serverUrl: string, options: PgBouncerOptions = {}): Promise<PgBouncer> {
  if (!PROGRAM) throw new Error(NO_PGBOUNCER)
  const folder = await ServerProgram.folder('pgbouncer')
  const reader = await PasswordReader.create(serverUrl)
  // The port may be taken between the system's choice and the start.
  for (let tries = 1; ; tries++) {
    const port = await freePort()
    const program = new ServerProgram(folder, [PROGRAM, `${folder}/pgbouncer.ini`], /process up/)
    await program.write('pgbouncer.ini', iniOf(serverUrl, port, folder, reader, options))
    await program.write('users.txt', `${userLine(serverUrl)}${userLine(reader.url)}`)
    try {
      await program.start()
      return new RunningPgBouncer(program, port, reader)
    } catch (error) {
      if (tries < START_TRIES && /in use/.test(program.output)) continue
      await program.dispose()
      await reader.drop()
      throw error
    }
  }
}

/**
 * A role that only reads passwords. One that tests log in with shares its server connections with them: on such a
 * connection a LISTEN of theirs is still in force, and PgBouncer 1.18 refuses a login ("bouncer config error") when a
 * notification arrives in the middle of its question.
 */
class PasswordReader {
  readonly name: string = `pooler_${randomBytes(4).toString('hex')}`
  readonly url: string
  readonly #serverUrl: string

  private constructor(serverUrl: string) {
    this.#serverUrl = serverUrl
    this.url = Object.assign(new URL(serverUrl), { username: this.name, password: 'reads' }).href
  }

  static async create(serverUrl: string): Promise<PasswordReader> {
    const reader = new PasswordReader(serverUrl)
    await reader.#run(`CREATE ROLE ${reader.name} LOGIN SUPERUSER PASSWORD 'reads'`)
    return reader
  }

  drop(): Promise<void> {
    return this.#run(`DROP ROLE ${this.name}`)
  }

  async #run(statement: string): Promise<void> {
    const client = new pg.Client(this.#serverUrl)
    await client.connect()
    try {
      await client.query(statement)
    } finally {
      await client.end()
    }
  }
}

class RunningPgBouncer implements PgBouncer {
  readonly #program: ServerProgram
  readonly #port: number
  readonly #reader: PasswordReader

  constructor(program: ServerProgram, port: number, reader: PasswordReader) {
    this.#program = program
    this.#port = port
    this.#reader = reader
  }

  get log(): string {
    return this.#program.output
  }

  url(baseUrl: string, alias?: string): string {
    const url = new URL(baseUrl)
    url.hostname = '127.0.0.1'
    url.port = String(this.#port)
    if (alias) url.pathname = alias
    return url.href
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  stop(): Promise<void> {
    return this.#program.end('SIGTERM')
  }

  kill(): Promise<void> {
    return this.#program.end('SIGKILL')
  }

  start(): Promise<void> {
    return this.#program.start()
  }

  async dispose(): Promise<void> {
    await this.#program.dispose()
    await this.#reader.drop()
  }
}

function iniOf(
  serverUrl: string,
  port: number,
  folder: string,
  reader: PasswordReader,
  options: PgBouncerOptions,
): string {
  const { host, port: serverPort } = serverAddress(serverUrl)
  const at = `host=${host} port=${serverPort}`
  const databases = { ...options.aliases, '*': '' }
  const settings = {
    listen_addr: '127.0.0.1',
    listen_port: port,
    unix_socket_dir: '',
    pool_mode: 'transaction',
    auth_type: 'scram-sha-256',
    auth_file: `${folder}/users.txt`,
    auth_user: reader.name,
    auth_query: 'SELECT usename, passwd FROM pg_shadow WHERE usename = $1',
    max_client_conn: 2_000,
    default_pool_size: 20,
    ...options.settings,
  }
  const lines = (values: object, join: string) =>
    Object.entries(values).map(([name, value]) => `${name} = ${join}${value}`)
  return ['[databases]', ...lines(databases, `${at} `), '[pgbouncer]', ...lines(settings, '')].join('\n')
}

function userLine(serverUrl: string): string {
  const { username, password } = new URL(serverUrl)
  const quoted = (text: string) => `"${decodeURIComponent(text).replaceAll('"', '""')}"`
  return `${quoted(username)} ${quoted(password)}\n`
}
