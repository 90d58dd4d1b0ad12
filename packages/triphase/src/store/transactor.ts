import pg from 'pg'
import { TriphaseError } from '../errors.ts'
import { hearErrors, isConnectionFailure, KEEP_ALIVE } from './database.ts'

/**
 * How the engine runs transactions of the application: with the application's own pool and query library, so that a
 * staged task's prepare and commit use what the rest of the application uses. `pgTransactor` is for node-postgres;
 * others take a few lines. A `pg` pool below them, and its clients, need listeners for `'error'`: unheard, a lost connection ends
 * the process (docs/operating.md).
 *
 * @example
 * const kyselyTransactor: Transactor<Transaction<DB>> = {
 *   transaction: (work) => db.transaction().execute(work),
 *   execute: (tx, text, values) => tx.executeQuery(CompiledQuery.raw(text, [...values])),
 * }
 */
export interface Transactor<Tx> {
  /** Runs `work` in a transaction: committed when it resolves, rolled back when it rejects. */
  transaction<Value>(work: (tx: Tx) => Promise<Value>): Promise<Value>
  /** Runs one statement inside `tx`. Parameters are written `$1`, `$2`, …; arrays are given as JavaScript arrays. */
  execute(tx: Tx, text: string, values: readonly unknown[]): Promise<{ rows: unknown[] }>
  /** Runs one statement outside any transaction, holding a connection only for it. Default: a transaction of one statement. */
  query?(text: string, values: readonly unknown[]): Promise<{ rows: unknown[] }>
}

/**
 * Runs a statement of the engine's inside a transaction of the application. A query library that wraps what its driver
 * threw (Drizzle) names the statement's values in its message: inputs and answers, which belong in no log.
 */
export async function executeInside<Tx>(
  transactor: Transactor<Tx>,
  tx: Tx,
  text: string,
  values: readonly unknown[],
): Promise<unknown[]> {
  try {
    return (await transactor.execute(tx, text, values)).rows
  } catch (error) {
    const cause = error instanceof Error && !('code' in error) ? error.cause : undefined
    throw cause instanceof Error && 'code' in cause ? cause : error
  }
}

/**
 * Transactions on a `pg` pool. The pool's `'error'` event (an idle connection was lost, as at each restart of the server)
 * no longer ends the process: the pool opens another connection. Listen to it, too, where you want to hear of it. A connection
 * that does not answer BEGIN within the pool's `connectionTimeoutMillis` (30 s where it has none) is given up.
 *
 * @example
 * createEngine({ url, transactor: pgTransactor(new pg.Pool({ connectionString })) })
 */
export function pgTransactor(pool: pg.Pool): Transactor<pg.PoolClient> {
  hearErrors(pool)
  pool.on('error', () => {})
  return {
    transaction: (work) => inTransaction(pool, work),
    execute: (tx, text, values) => tx.query(text, values as unknown[]),
    query: (text, values) => pool.query(text, values as unknown[]),
  }
}

async function inTransaction<Value>(
  pool: pg.Pool,
  work: (tx: pg.PoolClient) => Promise<Value>,
): Promise<Value> {
  const client = await pool.connect()
  // For the clients that were open before `hearErrors`.
  const unheard = () => {}
  client.on('error', unheard)
  let broken = true
  try {
    await begin(client, pool.options.connectionTimeoutMillis || BEGIN_MS)
    try {
      const value = await work(client)
      const { command } = await client.query('COMMIT')
      if (command !== 'COMMIT')
        throw new Error('The transaction had failed and was rolled back by the database.')
      broken = false
      return value
    } catch (error) {
      const rolledBack = await client.query('ROLLBACK').then(
        () => true,
        () => false,
      )
      // One that leads to a server that only reads, since a failover, answers ROLLBACK too.
      broken = !rolledBack || isConnectionFailure(error)
      throw error
    }
  } finally {
    client.off('error', unheard)
    client.release(broken)
  }
}

/** Until BEGIN is answered, on a pool without a time limit for connecting. */
const BEGIN_MS = 30_000

/**
 * Begins a transaction on a connection that may have been idle while a server or a network went away in silence. TCP would
 * tell of that after a quarter of an hour, in which each of the pool's connections would take a job with it.
 */
async function begin(client: pg.PoolClient, limitMs: number): Promise<void> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(silent(limitMs)), limitMs)
  const begun = client.query('BEGIN')
  // Once `late` has won, its own end is of no interest.
  begun.catch(() => {})
  try {
    await Promise.race([begun, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

function silent(limitMs: number): TriphaseError {
  return new TriphaseError(
    'CONNECTION_FAILED',
    `The database did not answer BEGIN within ${limitMs} ms. Look for a hung server, one that was replaced, a pooler ` +
      'without a free server connection, or a network that drops packets.',
  )
}

/** A pool for the application's transactions, for applications that bring none. Opens no connection before it is used. */
export function openApplicationPool(options: {
  url: string
  size: number
  applicationName: string
  acquireTimeoutMs: number
  onError: (error: Error) => void
}): pg.Pool {
  const pool = new pg.Pool({
    connectionString: options.url,
    max: options.size,
    application_name: options.applicationName,
    connectionTimeoutMillis: options.acquireTimeoutMs,
    idleTimeoutMillis: 60_000,
    ...KEEP_ALIVE,
  })
  pool.on('error', options.onError)
  return pool
}
