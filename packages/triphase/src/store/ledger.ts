import type { ObservedTask } from '../adviser.ts'
import { LONGEST_DELAY_MS } from '../duration.ts'
import type { TaskConnections } from '../telemetry.ts'
import type { Database } from './database.ts'

// now() and not clock_timestamp(): only what stands still in a statement leaves out partitions of other days. Of those
// that are left every row is read, as history has no index on time (each ack would pay for it). Phases are json, which
// costs sixty times as much a row as the sums do, so they are read of the newest jobs only (job_attempt_job, backwards).
const SUMS = /* sql */ `
WITH whole AS (
  SELECT task, queue, count(*)::float8 AS claims,
         sum(extract(epoch FROM finished_at - started_at)::float8 * 1000) AS "durationMs",
         sum(checkouts)::float8 AS checkouts, sum(wait_ms::float8) AS "waitMs", sum(hold_ms::float8) AS "holdMs",
         max(longest_hold_ms)::float8 AS "longestHoldMs"
  FROM triphase.job_attempt
  WHERE finished_at >= now() - $1 * interval '1 millisecond' AND checkouts > 0
  GROUP BY task, queue
), newest AS (
  SELECT task, queue, phases FROM triphase.job_attempt
  WHERE finished_at >= now() - $1 * interval '1 millisecond' AND checkouts > 0
  ORDER BY job_id DESC LIMIT $2
), phase AS (
  SELECT n.task, n.queue, each.name, count(*)::float8 AS claims, sum(of_claim."durationMs") AS "durationMs",
         sum(of_claim.checkouts) AS checkouts, sum(of_claim."waitMs") AS "waitMs", sum(of_claim."holdMs") AS "holdMs",
         max(of_claim."longestHoldMs") AS "longestHoldMs"
  FROM newest n, json_each(n.phases) AS each(name, figures),
       json_to_record(figures) AS of_claim(
         "durationMs" float8, checkouts float8, "waitMs" float8, "holdMs" float8, "longestHoldMs" float8)
  GROUP BY n.task, n.queue, each.name
), phases AS (
  SELECT task, queue, json_object_agg(name, json_build_object(
           'claims', claims, 'durationMs', "durationMs", 'checkouts', checkouts, 'waitMs', "waitMs",
           'holdMs', "holdMs", 'longestHoldMs', "longestHoldMs") ORDER BY name) AS phases
  FROM phase GROUP BY task, queue
)
SELECT whole.*, phases.phases::text FROM whole LEFT JOIN phases USING (task, queue) ORDER BY task, queue`

/** Attempts whose phases are summed. */
const MOST_WITH_PHASES = 20_000

/** Sums of the attempts that ended within so many milliseconds and held a connection, by task and queue. */
export async function sumLedgers(database: Database, lastMs: number): Promise<TaskConnections[]> {
  const rows = await database.query<SummedRow>(SUMS, [Math.min(lastMs, LONGEST_DELAY_MS), MOST_WITH_PHASES])
  return rows.map(({ phases, ...sums }) => ({ ...sums, phases: phases === null ? {} : JSON.parse(phases) }))
}

type SummedRow = Omit<TaskConnections, 'phases'> & { phases: string | null }

// By job_attempt_job, backwards: the same few rows however large history is.
const RECENT = /* sql */ `
SELECT queue, count(*)::float8 AS claims,
       sum(extract(epoch FROM finished_at - started_at)::float8 * 1000) AS "durationMs",
       sum(checkouts)::float8 AS checkouts, sum(wait_ms::float8) AS "waitMs", sum(hold_ms::float8) AS "holdMs"
FROM (
  SELECT * FROM triphase.job_attempt WHERE checkouts > 0 ORDER BY job_id DESC LIMIT 2000
) newest
GROUP BY queue`

/** Sums of the attempts of the newest jobs that held a connection, by queue: enough for means. */
export function recentLedgers(database: Database): Promise<ObservedTask[]> {
  return database.query<ObservedTask>(RECENT)
}
