import pg from 'pg'
import { TriphaseError } from 'triphase'

/**
 * Runs `work` on a connection of its own, made with the pool's settings: copying takes as long as a file is long, and none
 * of the pool's connections is kept for that.
 *
 * @throws {TriphaseError} `CONNECTION_FAILED`, `NO_PERMISSION`, `DISK_FULL`, `WRITE_REFUSED`; or the signal's reason.
 */
export async function withConnection<Value>(
  pool: pg.Pool,
  signal: AbortSignal | undefined,
  work: (client: pg.Client) => Promise<Value>,
): Promise<Value> {
  // The pool keeps its password where a spread does not find it. A pool's limit for a query is not one for a file.
  const client = new pg.Client({ ...pool.options, password: pool.options.password, query_timeout: 0 })
  // Until it is open, and once it broke; whoever waits for a statement hears of that, too. What else is thrown was not the
  // connection.
  let away = true
  client.on('error', () => {
    away = true
  })
  const abort = () => void client.end().catch(() => {})
  signal?.throwIfAborted()
  signal?.addEventListener('abort', abort, { once: true })
  try {
    await client.connect()
    away = false
    return await work(client)
  } catch (error) {
    signal?.throwIfAborted()
    throw explained(error, away)
  } finally {
    signal?.removeEventListener('abort', abort)
    // In the middle of a statement this closes the connection, and the server undoes what was not committed.
    await client.end().catch(() => {})
  }
}

function explained(error: unknown, away: boolean): unknown {
  if (!(error instanceof Error) || error instanceof TriphaseError) return error
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  const said = error.message.replace(/\.?$/, '.')
  if (away || (error instanceof pg.DatabaseError && /^(08|57P|53300)/.test(code))) {
    const hint = 'Nothing is left half done: try again.'
    return new TriphaseError('CONNECTION_FAILED', `The connection to the database failed: ${said} ${hint}`, {
      cause: error,
    })
  }
  if (error instanceof pg.DatabaseError) {
    if (code === '42501') {
      const hint = 'The role needs CREATE on the schema, and has to own a table that it replaces.'
      return new TriphaseError('NO_PERMISSION', `The database refused access: ${said} ${hint}`, {
        cause: error,
      })
    }
    if (code === '55P03') {
      const hint = 'Somebody else uses the table: try again when they are done.'
      return new TriphaseError('WRITE_REFUSED', `The table could not be locked: ${said} ${hint}`, {
        cause: error,
      })
    }
    if (code === '53100') {
      const hint =
        'Free space on it, or give the table another tablespace, and try again. Nothing is left half done.'
      return new TriphaseError('DISK_FULL', `The disk of the database is full: ${said} ${hint}`, {
        cause: error,
      })
    }
    const where = error.where ? ` (${error.where.split('\n')[0]?.slice(0, 200)})` : ''
    return new TriphaseError('WRITE_REFUSED', `The database refused${where}: ${said}`, { cause: error })
  }
  return error
}
