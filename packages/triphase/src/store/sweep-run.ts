import type { EngineStatements } from '../task.ts'

/** What a run is created with. */
export interface NewRun {
  sweep: string
  queue: string
  priority: number
  concurrency: number
  rate: number | null
  callBudget: number | null
  spendBudget: number | null
}

// The steward goes before pages (priority 0), and is never to blame for a crash.
const STEWARD = /* sql */ `
INSERT INTO triphase.job (id, task, queue, state, priority, max_attempts, max_crashes, input)
SELECT steward_job, sweep, queue, 'available', 0, 1000, 32767, json_build_object('run', id::text) FROM`

// sweep_run_open lets one in; the run's steward is written in the same statement.
const CREATE = /* sql */ `
WITH run AS (
  INSERT INTO triphase.sweep_run (sweep, queue, concurrency, rate, call_budget, spend_budget, steward_job)
  VALUES ($1, $2, $3, $4, $5, $6, nextval('triphase.job_id'))
  ON CONFLICT (sweep) WHERE state IN ('planned', 'running', 'paused') DO NOTHING
  RETURNING id, sweep, queue, steward_job
), steward AS (
  ${STEWARD} run
)
SELECT id::text FROM run`

// A second steward, should two do this at once, finds another's number in the run and ends.
const REVIVE = /* sql */ `
WITH run AS (
  UPDATE triphase.sweep_run r SET steward_job = nextval('triphase.job_id')
  WHERE r.id = $1 AND r.state IN ('planned', 'running')
    AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = r.steward_job)
  RETURNING id, sweep, queue, steward_job
), steward AS (
  ${STEWARD} run
)
SELECT queue FROM run`

// A pass that has found no page yet finds one, should there be records by now: whoever was about to end the run by what
// it had read finds the number changed. By sweep_run_open.
const LOOK_AGAIN = /* sql */ `
UPDATE triphase.sweep_run
SET feed_no = feed_no + (pass_pages = 0)::int, fed = fed AND pass_pages > 0
WHERE sweep = $1 AND state IN ('planned', 'running', 'paused') RETURNING id::text`

// By the column: a plain `id` would be the text that is selected, and '9' the last of all.
const LATEST = /* sql */ `
SELECT r.id::text FROM triphase.sweep_run r WHERE r.sweep = $1 ORDER BY r.id DESC LIMIT 1`

// sweep_run_pkey, sweep_page_run, job_pkey; processes are few. A page whose claim is not executing has no slots, and one
// whose process has been silent for long has none to show, should nobody be there to rescue its job.
const FIND = /* sql */ `
SELECT r.id::text, r.state, r.reason, r.created_at AS "createdAt", r.started_at AS "startedAt",
  r.finished_at AS "finishedAt", r.concurrency, r.rate, r.queue, r.total::float8 AS total,
  r.total_estimated AS "totalEstimated", (r.done + p.done)::float8 AS done, (r.errors + p.errors)::float8 AS errors,
  (r.calls + p.calls)::float8 AS calls, r.spent + p.spent AS spent, r.call_budget::float8 AS "callBudget",
  r.spend_budget AS "spendBudget",
  r.active_ms + coalesce(extract(epoch FROM clock_timestamp() - r.running_since)::float8 * 1000, 0) AS "activeMs",
  coalesce(greatest(extract(epoch FROM r.slow_until - clock_timestamp())::float8 * 1000, 0), 0) AS "slowMs",
  coalesce(r.samples, '[]')::text AS samples, extract(epoch FROM clock_timestamp())::float8 * 1000 AS "nowMs",
  r.steward_job::text AS "stewardJob", r.pass, r.pass_pages AS "passPages", r.feed_no AS "feedNo", r.fed, r.cursor,
  p.pages, p.undrained, p.slots,
  EXISTS (SELECT FROM triphase.job j WHERE j.id = r.steward_job) AS "hasSteward",
  EXISTS (SELECT FROM triphase.job j WHERE j.id = r.hook_job) AS "hookWaits",
  r.state = 'planned' AND EXISTS (
    SELECT FROM triphase.sweep_run o JOIN triphase.sweep_page p ON p.run_id = o.id
    JOIN triphase.job j ON j.id = p.job_id AND j.claim_no = p.claim_no AND j.state = 'executing'
    WHERE o.sweep = r.sweep AND o.id <> r.id AND p.slots > 0) AS "earlierAtWork",
  EXISTS (SELECT FROM triphase.process o
    WHERE o.beat_at > clock_timestamp() - interval '30 seconds' AND o.queues::jsonb ? r.queue) AS "hasProcess"
FROM triphase.sweep_run r CROSS JOIN LATERAL (
  SELECT coalesce(sum(p.done), 0) AS done, coalesce(sum(p.errors), 0) AS errors, coalesce(sum(p.calls), 0) AS calls,
    coalesce(sum(p.spent), 0) AS spent, count(*)::int AS pages, count(*) FILTER (WHERE NOT p.drained)::int AS undrained,
    coalesce(sum(p.slots) FILTER (WHERE EXISTS (
      SELECT FROM triphase.job j JOIN triphase.process o ON o.id = j.process_id
      WHERE j.id = p.job_id AND j.claim_no = p.claim_no AND j.state = 'executing'
        AND o.beat_at > clock_timestamp() - interval '30 seconds')), 0)::int AS slots
  FROM triphase.sweep_page p WHERE p.run_id = r.id
) p
WHERE r.id = $1`

const BEGIN = /* sql */ `
UPDATE triphase.sweep_run
SET state = 'running', started_at = clock_timestamp(), running_since = clock_timestamp(), total = $2, total_estimated = $3
WHERE id = $1 AND state = 'planned' RETURNING id`

const PAUSE = /* sql */ `
UPDATE triphase.sweep_run
SET state = 'paused', reason = $3, running_since = NULL, samples = NULL,
    active_ms = active_ms + coalesce(extract(epoch FROM clock_timestamp() - running_since)::float8 * 1000, 0)
WHERE id = $1 AND state = ANY ($2::text[]) RETURNING id`

// A new steward, whatever the old one does: it finds another's number in the run and ends.
const RESUME = /* sql */ `
WITH run AS (
  UPDATE triphase.sweep_run
  SET state = CASE WHEN started_at IS NULL THEN 'planned' ELSE 'running' END, reason = NULL, samples = NULL,
      running_since = CASE WHEN started_at IS NOT NULL THEN clock_timestamp() END, failures_in_row = 0,
      window_calls = 0, window_failures = 0, steward_job = nextval('triphase.job_id')
  WHERE id = $1 AND state = ANY ($2::text[])
  RETURNING id, sweep, queue, steward_job
), steward AS (
  ${STEWARD} run
)
SELECT queue FROM run`

// The run's row first. Pages that no job will end are ended here; the others end themselves.
const END = /* sql */ `
WITH run AS (
  SELECT id FROM triphase.sweep_run WHERE id = $1 AND state = ANY ($2::text[]) FOR NO KEY UPDATE
), gone AS (
  DELETE FROM triphase.sweep_page p
  WHERE EXISTS (SELECT FROM run) AND p.run_id = $1 AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = p.job_id)
  RETURNING p.id, p.done, p.errors, p.calls, p.spent
), tries AS (
  DELETE FROM triphase.sweep_record_try WHERE page_id IN (SELECT id FROM gone)
)
UPDATE triphase.sweep_run r
SET state = $3, reason = $4, finished_at = clock_timestamp(), running_since = NULL,
    active_ms = r.active_ms + coalesce(extract(epoch FROM clock_timestamp() - r.running_since)::float8 * 1000, 0),
    done = r.done + (SELECT coalesce(sum(done), 0) FROM gone), errors = r.errors + (SELECT coalesce(sum(errors), 0) FROM gone),
    calls = r.calls + (SELECT coalesce(sum(calls), 0) FROM gone), spent = r.spent + (SELECT coalesce(sum(spent), 0) FROM gone)
FROM run WHERE r.id = run.id RETURNING r.id`

// Whoever has read the cursor moves it, once: pages and their jobs come into being in the same statement.
const FEED = /* sql */ `
WITH moved AS (
  UPDATE triphase.sweep_run
  SET feed_no = feed_no + 1, cursor = $3, fed = $4, pass_pages = pass_pages + cardinality($5::text[])
  WHERE id = $1 AND feed_no = $2 AND state = 'running' AND NOT fed
  RETURNING id, sweep, queue
), page AS (
  INSERT INTO triphase.sweep_page (run_id, job_id, from_key, to_key)
  SELECT moved.id, nextval('triphase.job_id'), k.from_key, k.to_key
  FROM moved CROSS JOIN unnest($6::text[], $5::text[]) WITH ORDINALITY AS k(from_key, to_key, n) ORDER BY k.n
  RETURNING id, job_id
), job AS (
  INSERT INTO triphase.job (id, task, queue, state, priority, max_attempts, max_crashes, input)
  SELECT page.job_id, moved.sweep, moved.queue, 'available', $7, 1000, 32767,
         json_build_object('run', moved.id::text, 'page', page.id::text)
  FROM page CROSS JOIN moved ORDER BY page.job_id
)
SELECT queue FROM moved`

// By sweep_page_run and job_pkey. Only the steward does this, and a page that got two jobs in spite of that knows one.
const REVIVE_PAGES = /* sql */ `
WITH run AS (
  SELECT id, sweep, queue FROM triphase.sweep_run WHERE id = $1 AND state = 'running' FOR NO KEY UPDATE
), page AS (
  UPDATE triphase.sweep_page p SET job_id = nextval('triphase.job_id'), claim_no = 0, crashes_seen = 0
  FROM run WHERE p.run_id = run.id AND NOT EXISTS (SELECT FROM triphase.job j WHERE j.id = p.job_id)
  RETURNING p.id, p.job_id, run.id AS run_id, run.sweep, run.queue
), job AS (
  INSERT INTO triphase.job (id, task, queue, state, priority, max_attempts, max_crashes, input)
  SELECT job_id, sweep, queue, 'available', $2, 1000, 32767,
         json_build_object('run', run_id::text, 'page', id::text) FROM page ORDER BY job_id
)
SELECT id::text FROM page`

// Pages come only with a higher feed_no, so what this snapshot does not see cannot be there.
const NEXT_PASS = /* sql */ `
UPDATE triphase.sweep_run r
SET pass = pass + 1, pass_pages = 0, feed_no = feed_no + 1, fed = false, cursor = NULL
WHERE id = $1 AND feed_no = $2 AND state = 'running' AND fed AND pass_pages > 0
  AND NOT EXISTS (SELECT FROM triphase.sweep_page p WHERE p.run_id = r.id)
RETURNING id`

// A pass that found nothing: the run is complete, and its hook is a job, both or neither.
const COMPLETE = /* sql */ `
WITH run AS (
  UPDATE triphase.sweep_run
  SET state = 'completed', finished_at = clock_timestamp(), running_since = NULL, total = done + errors,
      total_estimated = false,
      active_ms = active_ms + extract(epoch FROM clock_timestamp() - running_since)::float8 * 1000,
      hook_job = CASE WHEN $3 THEN nextval('triphase.job_id') END
  WHERE id = $1 AND feed_no = $2 AND state = 'running' AND fed AND pass_pages = 0
  RETURNING id, sweep, queue, hook_job
), hook AS (
  INSERT INTO triphase.job (id, task, queue, state, priority, max_attempts, max_crashes, input)
  SELECT hook_job, sweep, queue, 'available', $4, $5, 3, json_build_object('run', id::text, 'hook', true)
  FROM run WHERE hook_job IS NOT NULL
)
SELECT queue FROM run`

const SAMPLE = /* sql */ `UPDATE triphase.sweep_run SET samples = $2::json WHERE id = $1 AND state = 'running'`

const CHANGE = /* sql */ `
UPDATE triphase.sweep_run
SET concurrency = coalesce($2, concurrency),
    rate = CASE WHEN $3 THEN $4 ELSE rate END,
    call_budget = CASE WHEN $5 THEN $6 ELSE call_budget END,
    spend_budget = CASE WHEN $7 THEN $8 ELSE spend_budget END
WHERE id = $1 RETURNING id`

export type StoredRunState = 'planned' | 'running' | 'paused' | 'completed' | 'cancelled' | 'failed'

/** A run's row, with the counts of its open pages added, and who is alive to drive it. */
export interface RunRow {
  id: string
  state: StoredRunState
  reason: string | null
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
  concurrency: number
  rate: number | null
  queue: string
  total: number | null
  totalEstimated: boolean
  done: number
  errors: number
  calls: number
  spent: number
  callBudget: number | null
  spendBudget: number | null
  activeMs: number
  slowMs: number
  /** Settled records at moments of the run, oldest first. */
  samples: { at: number; settled: number }[]
  /** The database's clock. */
  nowMs: number
  stewardJob: string
  pass: number
  passPages: number
  feedNo: number
  fed: boolean
  cursor: string | null
  pages: number
  undrained: number
  slots: number
  hasSteward: boolean
  hookWaits: boolean
  hasProcess: boolean
  /** Before this run begins: an earlier one, which was cancelled, still has calls under way. */
  earlierAtWork: boolean
}

/** Writes a run and its steward, unless one of this sweep is open; returns its id, or null. */
export async function createRun(engine: EngineStatements, run: NewRun): Promise<string | null> {
  const { sweep, queue, concurrency, rate, callBudget, spendBudget } = run
  const values = [sweep, queue, concurrency, rate, callBudget, spendBudget]
  const [row] = await engine.query<{ id: string }>(CREATE, values)
  return row?.id ?? null
}

/** Gives an open run a steward when it has none. */
export async function reviveRun(engine: EngineStatements, id: string): Promise<boolean> {
  return (await engine.query(REVIVE, [id])).length > 0
}

/**
 * Has the open run of a sweep see records that have become pending until now, before it completes.
 *
 * @returns the run; null: none is open.
 */
export async function lookAgain(engine: EngineStatements, sweep: string): Promise<string | null> {
  const [row] = await engine.query<{ id: string }>(LOOK_AGAIN, [sweep])
  return row?.id ?? null
}

export async function latestRun(engine: EngineStatements, sweep: string): Promise<string | null> {
  const [row] = await engine.query<{ id: string }>(LATEST, [sweep])
  return row?.id ?? null
}

export async function findRun(engine: EngineStatements, id: string): Promise<RunRow | null> {
  const [row] = await engine.query<Omit<RunRow, 'samples'> & { samples: string }>(FIND, [id])
  return row ? { ...row, samples: JSON.parse(row.samples) } : null
}

/** planned → running, with what it has before it. */
export async function beginRun(
  engine: EngineStatements,
  id: string,
  total: { count: number; estimated: boolean },
): Promise<boolean> {
  return (await engine.query(BEGIN, [id, total.count, total.estimated])).length > 0
}

export async function pauseRun(
  engine: EngineStatements,
  id: string,
  from: readonly StoredRunState[],
  reason: string | null,
): Promise<boolean> {
  return (await engine.query(PAUSE, [id, from, reason])).length > 0
}

/** Lets a run go on, with a new steward; false when it is in none of the states `from`. */
export async function resumeRun(
  engine: EngineStatements,
  id: string,
  from: readonly StoredRunState[],
): Promise<boolean> {
  return (await engine.query(RESUME, [id, from])).length > 0
}

export async function endRun(
  engine: EngineStatements,
  id: string,
  from: readonly StoredRunState[],
  to: StoredRunState,
  reason: string | null,
): Promise<boolean> {
  return (await engine.query(END, [id, from, to, reason])).length > 0
}

/** Moves the cursor over pages and writes them with their jobs; false when another has moved it. */
export async function feedRun(
  engine: EngineStatements,
  run: { id: string; feedNo: number; cursor: string | null },
  pages: readonly string[],
  options: { fed: boolean; priority: number },
): Promise<boolean> {
  const starts = [run.cursor, ...pages].slice(0, pages.length)
  const cursor = pages.at(-1) ?? run.cursor
  const values = [run.id, run.feedNo, cursor, options.fed, pages, starts, options.priority]
  return (await engine.query(FEED, values)).length > 0
}

/** Gives pages whose job is gone another one; returns how many. */
export async function revivePages(engine: EngineStatements, id: string, priority: number): Promise<number> {
  return (await engine.query(REVIVE_PAGES, [id, priority])).length
}

/** Begins the next pass, when all pages of this one are through. */
export async function nextPass(engine: EngineStatements, id: string, feedNo: number): Promise<boolean> {
  return (await engine.query(NEXT_PASS, [id, feedNo])).length > 0
}

/** Completes a run whose pass found nothing, and writes the job of its hook. */
export async function completeRun(
  engine: EngineStatements,
  run: { id: string; feedNo: number },
  hook: { priority: number; maxAttempts: number } | null,
): Promise<boolean> {
  const values = [run.id, run.feedNo, hook !== null, hook?.priority ?? 2, hook?.maxAttempts ?? 1]
  return (await engine.query(COMPLETE, values)).length > 0
}

export async function keepSamples(
  engine: EngineStatements,
  id: string,
  samples: RunRow['samples'],
): Promise<void> {
  await engine.query(SAMPLE, [id, JSON.stringify(samples)])
}

/** What can be changed of a run at any time; what is not given stays, null takes a limit away. */
export interface RunChanges {
  concurrency?: number
  /** Calls a second. */
  rate?: number | null
  callBudget?: number | null
  spendBudget?: number | null
}

export async function changeRun(engine: EngineStatements, id: string, changes: RunChanges): Promise<boolean> {
  const { concurrency, rate, callBudget, spendBudget } = changes
  const values: unknown[] = [id, concurrency ?? null]
  for (const change of [rate, callBudget, spendBudget]) values.push(change !== undefined, change ?? null)
  return (await engine.query(CHANGE, values)).length > 0
}
