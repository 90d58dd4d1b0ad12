import type { Backend } from './backend.ts'

/** The channel to LISTEN on, on a connection that is not pooled per transaction. */
const ANALYSIS_CHANNEL = 'scout_analysis'

/**
 * Broadcasts each analysis that this process completes, once it is committed: `{"captureId", "analysisId",
 * "observations"}`. A hint for whoever shows analyses live; it can be lost, and the tables are the truth.
 */
export function announceAnalyses({ engine, pool }: Backend): void {
  engine.telemetry.on('job:completed', ({ result }) => {
    pool.query('SELECT pg_notify($1, $2)', [ANALYSIS_CHANNEL, JSON.stringify(result)]).catch(() => {})
  })
}
