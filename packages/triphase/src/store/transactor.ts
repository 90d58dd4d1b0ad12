import pg from 'pg'
import { hearErrors } from './database.ts'

/**
 * How the engine runs transactions of the application: with the application's own pool and query library, so that a
 * staged task's prepare and commit use what the rest of the application uses. `pgTransactor` is for node-postgres;
 * others take a few lines.
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
 * no longer ends the process: the pool opens another connection. Listen to it, too, where you want to hear of it.
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
  let broken = false
  try {
    await client.query('BEGIN')
    const value = await work(client)
    const { command } = await client.query('COMMIT')
    if (command !== 'COMMIT')
      throw new Error('The transaction had failed and was rolled back by the database.')
    return value
  } catch (error) {
    broken = await client.query('ROLLBACK').then(
      () => false,
      () => true,
    )
    throw error
  } finally {
    client.off('error', unheard)
    client.release(broken)
  }
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
    keepAlive: true,
  })
  pool.on('error', options.onError)
  return pool
}
