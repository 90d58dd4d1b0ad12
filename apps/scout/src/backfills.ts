import type pg from 'pg'

/** Anything that runs a statement. */
type Connection = Pick<pg.ClientBase, 'query'>

/** A backfill that is open. */
export interface Backfill {
  readonly id: string
  /** It was begun by this call. */
  readonly begun: boolean
}

/**
 * Gives all cameras this prompt. Where one had another, an open backfill ends in the same statement: what it has described
 * was asked with the old one. True when it did.
 */
export async function changePrompt(connection: Connection, prompt: string): Promise<boolean> {
  const { rowCount } = await connection.query(
    `WITH changed AS (
       UPDATE scout.camera SET profile = jsonb_set(coalesce(profile, '{}'), '{prompt}', to_jsonb($1::text))
       WHERE profile->>'prompt' IS DISTINCT FROM $1 RETURNING id
     )
     UPDATE scout.backfill SET finished_at = now() WHERE finished_at IS NULL AND EXISTS (SELECT FROM changed)
     RETURNING id`,
    [prompt],
  )
  return rowCount !== 0
}

/** The open backfill, or a new one over the captures that there are now. Whoever is second gets the first one's. */
export async function findOrBeginBackfill(connection: Connection): Promise<Backfill> {
  while (true) {
    const begun = await connection.query<{ id: string }>(
      `INSERT INTO scout.backfill (last_capture_id) SELECT coalesce(max(id), 0) FROM scout.capture
       ON CONFLICT ((finished_at IS NULL)) WHERE finished_at IS NULL DO NOTHING RETURNING id`,
    )
    if (begun.rows[0]) return { id: begun.rows[0].id, begun: true }
    const open = await openBackfill(connection)
    if (open !== null) return { id: open, begun: false }
  }
}

export async function openBackfill(connection: Connection): Promise<string | null> {
  const { rows } = await connection.query<{ id: string }>(
    'SELECT id FROM scout.backfill WHERE finished_at IS NULL',
  )
  return rows[0]?.id ?? null
}

const CAPTURES_AT_A_TIME = 1_000

/**
 * Makes every analysed capture of a backfill pending, once, in short commits: whoever was killed goes on, and what the
 * backfill has described already stays so.
 */
export async function addCaptures(connection: Connection, backfillId: string): Promise<void> {
  for (let after: string | null = '0'; after !== null; ) {
    const { rows }: { rows: { last: string | null }[] } = await connection.query(
      `WITH page AS (
         SELECT capture.id, EXISTS (
           SELECT FROM scout.analysis WHERE capture_id = capture.id AND status <> 'processing') AS analysed
         FROM scout.capture, scout.backfill
         WHERE backfill.id = $1 AND capture.id > $2 AND capture.id <= last_capture_id AND backfill_id < backfill.id
         ORDER BY capture.id LIMIT $3
       ), added AS (
         UPDATE scout.capture
         SET backfill_id = $1, backfill_status = 'pending', backfill_result = NULL, backfill_error = NULL
         FROM page WHERE capture.id = page.id AND page.analysed AND backfill_id < $1
       )
       SELECT max(id) AS last FROM page`,
      [backfillId, after, CAPTURES_AT_A_TIME],
    )
    after = rows[0]?.last ?? null
  }
}

export async function finishBackfill(connection: Connection, backfillId: string): Promise<void> {
  await connection.query(
    'UPDATE scout.backfill SET finished_at = now() WHERE id = $1 AND finished_at IS NULL',
    [backfillId],
  )
}
