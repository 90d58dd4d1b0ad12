import type { RunStatement } from './insert.ts'

const NOTIFY = /* sql */ `SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload`

/** The channel of a schema's hints. */
function channelOf(schema: string): string {
  return `triphase_${schema}`
}

/** The statement with which a connection starts to listen. */
export function listenStatement(schema: string): string {
  return `LISTEN ${channelOf(schema)}`
}

export const STILL_THERE = /* sql */ `SELECT 1`

/** Sends payloads (each under 8,000 bytes) to everybody who listens. */
export async function notify(run: RunStatement, schema: string, hints: readonly object[]): Promise<void> {
  await run(NOTIFY, [channelOf(schema), hints.map((hint) => JSON.stringify(hint))])
}
