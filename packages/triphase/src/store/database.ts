import { AsyncLocalStorage } from 'node:async_hooks'
import pg from 'pg'
import { detached } from '../detached.ts'
import { TriphaseError } from '../errors.ts'

/** Where a pool's connections go, and how many there are. */
export interface PoolOptions {
  url: string
  /** Most connections open at a time. */
  size: number
  applicationName: string
  /** Longest wait for a connection, in milliseconds. */
  acquireTimeoutMs: number
  /** Longest run of one statement, in milliseconds; then it is cancelled and its connection destroyed. */
  statementTimeoutMs: number
}

export type HeldListener = (waitMs: number, holdMs: number) => void

/** Whoever listens on a connection. */
export interface ConnectionListener {
  notified(payload: string): void
  /** The connection has ended; may be told more than once. */
  lost(error: Error): void
}

/**
 * Of every connection: a server that has vanished while an answer of it is waited for is noticed within 20 s. The kernel's
 * own first look, which pg leaves as it is, comes after two hours.
 */
export const KEEP_ALIVE = { keepAlive: true, keepAliveInitialDelayMillis: 10_000 } as const

type Rows<Row> = Promise<Row[]>

/** One transaction on the engine's pool. */
export interface EngineTransaction {
  query<Row>(sql: string, values?: readonly unknown[]): Rows<Row>
}

/**
 * A pool of connections and the schema that the statements mean.
 *
 * Statements are written with the schema's default name, `triphase.`, and sent unnamed, one at a time, each a
 * transaction of its own unless it runs inside `transaction`: all of it works behind a transaction-mode pooler. The
 * time limit is kept on this side, since poolers refuse `statement_timeout` as a startup parameter.
 */
export class Database {
  readonly schema: string
  readonly #pool: pg.Pool
  readonly #options: PoolOptions
  readonly #texts = new Map<string, string>()
  readonly #onHeld: HeldListener

  constructor(
    schema: string,
    options: PoolOptions,
    onError: (error: Error) => void = () => {},
    onHeld: HeldListener = () => {},
  ) {
    this.schema = schema
    this.#options = options
    this.#onHeld = onHeld
    this.#pool = new pg.Pool({
      connectionString: options.url,
      application_name: options.applicationName,
      max: options.size,
      connectionTimeoutMillis: options.acquireTimeoutMs,
      idleTimeoutMillis: 60_000,
      ...KEEP_ALIVE,
      types: TYPES,
    })
    this.#pool.on('error', onError)
    hearErrors(this.#pool)
  }

  /** Connections open now, and how many of them are checked out. */
  get connections(): { open: number; inUse: number; waiting: number } {
    const { totalCount, idleCount, waitingCount } = this.#pool
    return { open: totalCount, inUse: totalCount - idleCount, waiting: waitingCount }
  }

  /** The statement's text for this schema. */
  text(sql: string): string {
    const known = this.#texts.get(sql)
    if (known !== undefined) return known
    const text = inSchema(sql, this.schema)
    this.#texts.set(sql, text)
    return text
  }

  /** Runs one statement. */
  query<Row>(sql: string, values: readonly unknown[] = []): Rows<Row> {
    return this.#checkedOut((client) => this.#run<Row>(client, this.text(sql), values))
  }

  /** Runs one statement, and tells which process of the server was announced when its connection was opened. */
  queryAnnounced<Row>(sql: string): Promise<{ rows: Row[]; announcedPid: number | null }> {
    return this.#checkedOut(async (client) => {
      const { processID } = client as unknown as { processID: number | null }
      return { rows: await this.#run<Row>(client, this.text(sql), []), announcedPid: processID }
    })
  }

  /**
   * Runs a LISTEN on a connection that goes back to the pool, and tells what arrives there from then on, also beside
   * other statements. For a pool of one connection, which stays open from now on.
   *
   * @returns what ends the telling, not the connection.
   */
  listen(sql: string, listener: ConnectionListener): Promise<() => void> {
    this.#pool.options.idleTimeoutMillis = 0
    // The connection is nobody's, and what it tells belongs to whoever listens.
    const own = AsyncLocalStorage.snapshot()
    return this.#checkedOut(async (client) => {
      const notified = ({ payload }: pg.Notification) => own(() => listener.notified(payload ?? ''))
      const lost = (error: Error) => own(() => listener.lost(error))
      const ended = () => lost(new Error('the connection was closed'))
      const deafen = () => void client.off('notification', notified).off('error', lost).off('end', ended)
      client.on('notification', notified).on('error', lost).on('end', ended)
      try {
        await this.#run(client, sql, [])
        return deafen
      } catch (error) {
        deafen()
        throw error
      }
    })
  }

  /** Runs `work` between BEGIN and COMMIT. */
  transaction<Value>(work: (transaction: EngineTransaction) => Promise<Value>): Promise<Value> {
    return this.#checkedOut(async (client) => {
      const query = <Row>(sql: string, values: readonly unknown[] = []) =>
        this.#run<Row>(client, this.text(sql), values)
      await query('BEGIN')
      try {
        const value = await work({ query })
        await query('COMMIT')
        return value
      } catch (error) {
        // A connection that cannot roll back is destroyed by #run; the first error is the one that matters.
        await query('ROLLBACK').catch(() => {})
        throw error
      }
    })
  }

  end(): Promise<void> {
    return endPool(this.#pool)
  }

  async #checkedOut<Value>(work: (client: pg.PoolClient) => Promise<Value>): Promise<Value> {
    if (this.#pool.ending) throw stopped()
    const asked = performance.now()
    const client = await detached(() => this.#pool.connect()).catch((error: unknown) => {
      throw connectionFailure(error)
    })
    const held = performance.now()
    let broken = false
    try {
      return await work(client)
    } catch (error) {
      broken = isConnectionFailure(error)
      throw error
    } finally {
      client.release(broken)
      this.#onHeld(held - asked, performance.now() - held)
    }
  }

  async #run<Row>(client: pg.PoolClient, text: string, values: readonly unknown[]): Promise<Row[]> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        detached(() => cancelStatement(client, this.#options.url))
        reject(statementTimeout(text, this.#options.statementTimeoutMs))
      }, this.#options.statementTimeoutMs)
    })
    const running = client.query(text, values as unknown[])
    // Once `late` has won, the statement's own end is of no interest.
    running.catch(() => {})
    try {
      return (await Promise.race([running, late])).rows as Row[]
    } catch (error) {
      throw isConnectionFailure(error) ? connectionFailure(error) : error
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Timestamps as dates, int8 as strings, json as text, whatever the application has set for its own use of `pg`. */
const PARSERS: Record<number, (text: string) => unknown> = {
  16: (text) => text === 't',
  21: Number,
  23: Number,
  700: Number,
  701: Number,
  1009: pg.types.getTypeParser(1009 as never) as (text: string) => unknown,
  1184: (text) => new Date(text),
}

const TYPES = {
  getTypeParser: (oid: number) => PARSERS[oid] ?? ((text: string) => text),
} as pg.CustomTypesConfig

/** Puts the configured schema in place of `triphase.`; quoted, as it may be a word of SQL (`order`). */
export function inSchema(sql: string, schema: string): string {
  return schema === 'triphase' ? sql : sql.replaceAll(/\btriphase\./g, `"${schema}".`)
}

/**
 * pg emits 'error' on a client whose connection ends between two statements, or in the very moment in which it is
 * opened: unheard, it would end the process. So each client is heard from its first moment on.
 */
export function hearErrors(pool: pg.Pool): void {
  pool.on('connect', (client) => client.on('error', () => {}))
}

const GIVE_BACK_MS = 5_000

/**
 * Ends a pool. Neither connections whose goodbye nobody answers (the network is away) nor those that are not given back for
 * 5 s (a statement that never ends) keep the process alive.
 */
export async function endPool(pool: pg.Pool): Promise<void> {
  const clients = [...(pool as unknown as { _clients: { unref(): void }[] })._clients]
  const unref = () => {
    for (const client of clients) client.unref()
  }
  const timer = setTimeout(unref, GIVE_BACK_MS)
  await pool.end()
  clearTimeout(timer)
  unref()
}

/** Asks the server, over a connection of its own, to give up what `client` waits for; nobody waits for the answer. */
function cancelStatement(client: pg.PoolClient, url: string): void {
  const { processID, secretKey } = client as unknown as { processID: number | null; secretKey: number | null }
  if (!processID) return
  const canceller = new pg.Client({ connectionString: url })
  const connection = (canceller as unknown as { connection: CancelConnection }).connection
  connection.on('connect', () => connection.cancel(processID, secretKey))
  connection.on('error', () => {})
  const { host, port } = canceller
  // A folder is that of a Unix socket.
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`)
  else connection.connect(port, host)
  connection.stream.unref()
}

interface CancelConnection {
  on(event: 'connect' | 'error', listener: () => void): void
  readonly stream: { unref(): void }
  connect(port: number | string, host?: string): void
  cancel(processId: number, secretKey: number | null): void
}

function stopped(): TriphaseError {
  return new TriphaseError(
    'ENGINE_NOT_RUNNING',
    'This engine was stopped, and its connections are closed. Make another one.',
  )
}

function statementTimeout(text: string, limitMs: number): TriphaseError {
  return new TriphaseError(
    'STATEMENT_TIMEOUT',
    `The database did not answer within ${limitMs} ms: ${text.trim().slice(0, 80).replaceAll(/\s+/g, ' ')}. ` +
      'Look for locks that are held (pg_stat_activity, pg_locks) and for a network that drops packets.',
  )
}

const SYSTEM_CODES = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOENT',
])

// 28: the login was refused, perhaps while passwords are being changed. 57P01-57P05: the server shuts down, crashed,
// starts up, dropped the database, or ended an idle session. 25006: after a failover the connection leads to a server that
// only reads, and would for as long as it is open; the next one may lead to the primary.
const SERVER_CODES = /^(08|25006|28|57P0|53300)/

// What Node says of TLS; a certificate may have expired, and be replaced.
const TLS_CODES = /^(ERR_(TLS|SSL)|(DEPTH_ZERO_)?SELF_SIGNED|UNABLE_TO_(VERIFY|GET)|CERT_)/

// What pg says, without a code.
const CLIENT_WORDS =
  /Connection terminated|not queryable|timeout exceeded when trying to connect|Client was closed|SSL connection|client password must be/

// What PgBouncer says, whose codes say little.
const POOLER_WORDS = /server_login_retry|pgbouncer/i

/** Whether an error means that there is no connection (any more), so that trying again may help. */
export function isConnectionFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (error instanceof TriphaseError) {
    return ['CONNECTION_FAILED', 'LOGIN_REFUSED', 'STATEMENT_TIMEOUT'].includes(error.code)
  }
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const words = error.message
  if (SYSTEM_CODES.has(code) || SERVER_CODES.test(code) || TLS_CODES.test(code)) return true
  return CLIENT_WORDS.test(words) || POOLER_WORDS.test(words)
}

// PgBouncer refuses every login with 08P01, and says only in words why. The last is pg's, of a URL without a password.
const REFUSALS =
  /(SASL|password|cert|peer|PAM) authentication failed|no such (user|database)|login rejected|does not allow|client password must be/i

/** An error of connecting, as one that says what to do. */
export function connectionFailure(cause: unknown): TriphaseError {
  if (cause instanceof TriphaseError) return cause
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
  const message = cause instanceof Error ? cause.message || code : String(cause)
  if (/^(28|3D)/.test(code) || REFUSALS.test(message)) {
    return new TriphaseError(
      'LOGIN_REFUSED',
      `The database refused the login: ${message}. Check user, password and database name in the URL, and the server's pg_hba.conf.`,
      { cause },
    )
  }
  if (code === '25006') {
    return new TriphaseError(
      'CONNECTION_FAILED',
      `The database takes no writes: ${message}. It is a standby, or a primary that was replaced: let the URL lead to the ` +
        'primary. If it is the primary, look for default_transaction_read_only (of the server, the database, the role).',
      { cause },
    )
  }
  const [, remedy] = REMEDIES.find(([words]) => words.test(`${code} ${message}`)) ?? [null, NOT_THERE]
  return new TriphaseError('CONNECTION_FAILED', `The database cannot be reached: ${message}. ${remedy}`, {
    cause,
  })
}

const NOT_THERE = 'Check that it runs and that host and port in its URL are right.'

/** What helps, by code and words of the failure. */
const REMEDIES: readonly [RegExp, string][] = [
  [
    /^53300|too many clients|connection slots|no more connections allowed/,
    'Every connection that it allows is taken: make the pools smaller (each process has its own), raise the limit ' +
      '(max_connections, the role’s CONNECTION LIMIT, max_client_conn of PgBouncer), or put a pooler between.',
  ],
  [
    /^ERR_(TLS|SSL)|^(DEPTH_ZERO_)?SELF_SIGNED|^UNABLE_TO_(VERIFY|GET)|^CERT_|\bSSL\b|\bTLS\b|certificate/,
    'It and the URL disagree about encryption: see sslmode and sslrootcert in the URL, and the certificate and ' +
      'pg_hba.conf (or client_tls_sslmode of PgBouncer) over there.',
  ],
  [
    /timeout exceeded when trying to connect/,
    'Every connection of this pool was in use, or being opened, for the whole of acquireTimeout: look in ' +
      'pg_stat_activity for what they do, or make the pool larger.',
  ],
  [
    /connection timeout|timeout expired/,
    'Somebody accepts connections there and does not answer within acquireTimeout: look for a hung server, a pooler ' +
      'without a server, or a network that drops packets.',
  ],
]

/**
 * Whether the database refused the values of a statement, so that the same statement can never succeed; or JavaScript did,
 * whose strings end at half a gigabyte, before it was sent.
 */
export function isDataError(error: unknown): boolean {
  if (error instanceof RangeError && error.message === 'Invalid string length') return true
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return /^(21|22|23|54)/.test(code)
}
