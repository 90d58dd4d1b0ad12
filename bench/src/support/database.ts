import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'

/** Connections with this name are the benchmark's own and not counted. */
export const OWN_CONNECTIONS = 'bench-look'

export async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, application_name: OWN_CONNECTIONS })
  client.on('error', () => {})
  await client.connect()
  return client
}

/** Statements on a connection of their own. */
export async function onConnection<Value>(
  url: string,
  work: (client: pg.Client) => Promise<Value>,
): Promise<Value> {
  const client = await connected(url)
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** The only row of a statement. */
export function oneRow<Row extends pg.QueryResultRow>(url: string, text: string): Promise<Row> {
  return onConnection(url, async (client) => (await client.query<Row>(text)).rows[0] as Row)
}

const PAUSE_MS = 5

/** Resolves when a statement finds no row any more. */
export function emptied(url: string, text: string): Promise<void> {
  return onConnection(url, async (client) => {
    while ((await client.query(text)).rows.length > 0) await delay(PAUSE_MS)
  })
}

/** Runs `work` between BEGIN and COMMIT. */
export async function inTransaction(
  pool: pg.Pool,
  work: (client: pg.PoolClient) => Promise<unknown>,
): Promise<void> {
  const client = await pool.connect()
  await client.query('BEGIN')
  await work(client)
  await client.query('COMMIT')
  client.release()
}
