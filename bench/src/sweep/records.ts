import { setTimeout as delay } from 'node:timers/promises'
import { onConnection } from '../support/database.ts'
import { differs } from '../systems/contestant.ts'

export interface Row {
  id: string
}

export type Call = (row: Row) => Promise<string>

const TABLE = `
CREATE TABLE record (
  id bigint PRIMARY KEY, body text NOT NULL, status text NOT NULL DEFAULT 'pending', result text, error_message text);
CREATE INDEX record_status ON record (status, id);
CREATE INDEX record_pending ON record (id) WHERE status = 'pending'`

const FILL = `INSERT INTO record (id, body) SELECT n, 'record ' || n FROM generate_series(1, $1::int) n`

/** A table of pending records as it is some time after it was filled: vacuumed, with statistics, written to disk. */
export async function createRecords(url: string, records: number): Promise<void> {
  await onConnection(url, async (client) => {
    await client.query(TABLE)
    await client.query(FILL, [records])
    await client.query('VACUUM (ANALYZE, FREEZE) record')
    await client.query('CHECKPOINT')
  })
}

/** A call that takes so long, and no time at all with 0: then everything else is what is measured. */
export function callOf(ms: number): Call {
  if (ms === 0) return async ({ id }) => `answer ${id}`
  return async ({ id }) => {
    await delay(ms)
    return `answer ${id}`
  }
}

/** Every record has to be done, with its own result. */
export async function recordFaults(url: string, records: number): Promise<string[]> {
  const { rows } = await onConnection(url, (client) =>
    client.query<{ done: number }>(
      `SELECT count(*) FILTER (WHERE status = 'done' AND result = 'answer ' || id)::int AS done FROM record`,
    ),
  )
  return differs('records done', rows[0]?.done, records)
}
