import type { EngineStatements } from '../task.ts'

// The dead claim's slots say how many records may have been under way when it ended: those at the front of the page,
// and those that had been tried before. By sweep_page_pkey, job_pkey, sweep_record_try_pkey.
const OPEN = /* sql */ `
WITH before AS (
  SELECT * FROM triphase.sweep_page WHERE id = $1
), opened AS (
  UPDATE triphase.sweep_page p
  SET claim_no = $2, wanted = 0, slots = 0, crashes_seen = $3,
      cautious = CASE WHEN $3 <= before.crashes_seen THEN p.cautious
        WHEN before.calling IS NOT NULL THEN greatest(p.cautious, 1)
        ELSE greatest(p.cautious, before.slots, 1)
          + (SELECT count(*) FROM triphase.sweep_record_try t WHERE t.page_id = p.id)::int END,
      calling = CASE WHEN $3 <= before.crashes_seen THEN p.calling END
  FROM before
  WHERE p.id = before.id AND EXISTS (
    SELECT FROM triphase.job j WHERE j.id = p.job_id AND j.claim_no = $2 AND j.state = 'executing')
  RETURNING p.run_id, p.from_key, p.to_key, p.calls, p.spent, p.cautious
), crashed AS (
  INSERT INTO triphase.sweep_record_try AS t (page_id, record_key, crashes, error)
  SELECT before.id, before.calling, 1, NULL FROM before
  WHERE EXISTS (SELECT FROM opened) AND before.calling IS NOT NULL AND $3 > before.crashes_seen
  ON CONFLICT (page_id, record_key) DO UPDATE SET crashes = t.crashes + 1, due_at = clock_timestamp()
)
SELECT run_id::text, from_key, to_key, calls, spent, cautious FROM opened`

const TRIES = /* sql */ `
SELECT record_key, tries, crashes, greatest(extract(epoch FROM due_at - clock_timestamp())::float8 * 1000, 0) AS due_ms
FROM triphase.sweep_record_try WHERE page_id = $1`

// One page after the other, as they are given: what one gives back the next may have.
const BEAT = /* sql */ `
SELECT b.state, b.slots, b.slow_ms, b.rate, b.calls_left::float8, b.spend_left, b.stopping
FROM unnest($5::bigint[], $6::int[], $7::int[], $8::int[], $9::int[], $10::float8[], $11::boolean[], $12::int[],
            $13::int[], $14::int[], $15::float8[])
     WITH ORDINALITY AS r(page, claim_no, wanted, busy, calls, spent, drained, ok, failed, in_row, slow_ms, n)
CROSS JOIN LATERAL triphase.sweep_beat(
  $1, r.page, r.claim_no, r.wanted, r.busy, r.calls, r.spent, r.drained, r.ok, r.failed, r.in_row, r.slow_ms, $2, $3, $4
) b
ORDER BY r.n`

// Replaces what an earlier try left; by sweep_record_try_pkey.
const KEEP_TRIES = /* sql */ `
INSERT INTO triphase.sweep_record_try (page_id, record_key, tries, due_at, error)
SELECT $1, t.record_key, t.tries, clock_timestamp() + t.delay_ms * interval '1 millisecond', t.error
FROM unnest($2::text[], $3::int[], $4::float8[], $5::text[]) AS t(record_key, tries, delay_ms, error)
ON CONFLICT (page_id, record_key) DO UPDATE
SET tries = excluded.tries, due_at = excluded.due_at, error = excluded.error`

const CALLING = /* sql */ `
UPDATE triphase.sweep_page p SET calling = $3, cautious = $4 WHERE id = $1 AND claim_no = $2 RETURNING id`

// The run first, then the page, then the steward's job, which has something to do now. The page's row goes and its
// counts stay, in one statement. Only the claim that works on it may end it: another's slots would be forgotten.
const FINISH = /* sql */ `
WITH run AS (
  SELECT r.id, r.steward_job FROM triphase.sweep_run r WHERE r.id = $1 FOR NO KEY UPDATE
), gone AS (
  DELETE FROM triphase.sweep_page p
  WHERE EXISTS (SELECT FROM run) AND p.id = $2 AND EXISTS (
    SELECT FROM triphase.job j WHERE j.id = p.job_id AND j.claim_no = $3 AND j.state = 'executing')
  RETURNING p.run_id, p.done, p.errors, p.calls, p.spent
), tries AS (
  DELETE FROM triphase.sweep_record_try WHERE page_id = $2 AND EXISTS (SELECT FROM gone)
), added AS (
  UPDATE triphase.sweep_run r
  SET done = r.done + gone.done, errors = r.errors + gone.errors, calls = r.calls + $4, spent = r.spent + $5
  FROM gone WHERE r.id = gone.run_id
  RETURNING r.steward_job
)
UPDATE triphase.job j
SET state = 'available', run_at = clock_timestamp(), position = nextval('triphase.job_position')
FROM added WHERE j.id = added.steward_job AND j.state = 'scheduled' RETURNING j.queue`

export interface OpenPage {
  runId: string
  fromKey: string | null
  toKey: string
  calls: number
  spent: number
  /** Records to be called one at a time. */
  cautious: number
}

interface OpenRow {
  run_id: string
  from_key: string | null
  to_key: string
  calls: number
  spent: number
  cautious: number
}

/** Takes a page for a claim of its job; null when the page is through, or the claim is no longer the job's. */
export async function openPage(
  engine: EngineStatements,
  pageId: string,
  claim: { claimNo: number; crashCount: number },
): Promise<OpenPage | null> {
  const [row] = await engine.query<OpenRow>(OPEN, [pageId, claim.claimNo, claim.crashCount])
  if (!row) return null
  const { run_id: runId, from_key: fromKey, to_key: toKey, ...counts } = row
  return { runId, fromKey, toKey, ...counts }
}

export interface RecordTries {
  tries: number
  crashes: number
  /** Until it is to be tried again, in milliseconds. */
  dueMs: number
}

export async function findTries(engine: EngineStatements, pageId: string): Promise<Map<string, RecordTries>> {
  const rows = await engine.query<{ record_key: string; tries: number; crashes: number; due_ms: number }>(
    TRIES,
    [pageId],
  )
  return new Map(
    rows.map(({ record_key, tries, crashes, due_ms }) => [record_key, { tries, crashes, dueMs: due_ms }]),
  )
}

export interface BeatReport {
  pageId: string
  claimNo: number
  wanted: number
  busy: number
  calls: number
  spent: number
  drained: boolean
  /** Calls that succeeded and failed since the last beat, and how many of the failures came after the last success. */
  ok: number
  failed: number
  trailing: number
  slowMs: number
  breaker: { inRow: number; window: number; share: number }
}

export interface BeatAnswer {
  state: 'planned' | 'running' | 'paused' | 'completed' | 'cancelled' | 'failed' | 'lost'
  slots: number
  slowMs: number
  /** Calls a second that this page may begin; null: as many as it likes. */
  rate: number | null
  /** Calls that this page may begin, and what it may spend, before it asks again; null: no limit. */
  callsLeft: number | null
  spendLeft: number | null
  /** The process is about to end. */
  stopping: boolean
}

interface BeatRow {
  state: BeatAnswer['state']
  slots: number
  slow_ms: number
  rate: number | null
  calls_left: number | null
  spend_left: number | null
  stopping: boolean | null
}

/** Says what pages of a run do and learns what they may do, one after the other. */
export async function beatPages(
  engine: EngineStatements,
  runId: string,
  reports: readonly BeatReport[],
): Promise<BeatAnswer[]> {
  const { inRow, window, share } = (reports[0] as BeatReport).breaker
  const column = (name: Exclude<keyof BeatReport, 'breaker'>) => reports.map((report) => report[name])
  const rows = await engine.query<BeatRow>(BEAT, [runId, inRow, window, share, ...REPORTED.map(column)])
  return rows.map(({ state, slots, slow_ms, rate, calls_left, spend_left, stopping }) => ({
    state,
    slots,
    slowMs: slow_ms ?? 0,
    rate,
    callsLeft: calls_left,
    spendLeft: spend_left,
    stopping: stopping ?? false,
  }))
}

/** As the statement takes them. */
const REPORTED = [
  'pageId',
  'claimNo',
  'wanted',
  'busy',
  'calls',
  'spent',
  'drained',
  'ok',
  'failed',
  'trailing',
  'slowMs',
] as const

export interface FailedTry {
  key: string
  tries: number
  delayMs: number
  error: string
}

export async function keepTries(
  engine: EngineStatements,
  pageId: string,
  tries: readonly FailedTry[],
): Promise<void> {
  await engine.query(KEEP_TRIES, [
    pageId,
    tries.map(({ key }) => key),
    tries.map((one) => one.tries),
    tries.map(({ delayMs }) => delayMs),
    tries.map(({ error }) => error),
  ])
}

/** Notes which record is about to be called, alone. False when the page is no longer this claim's. */
export async function noteCalling(
  engine: EngineStatements,
  page: { id: string; claimNo: number },
  key: string | null,
  cautious: number,
): Promise<boolean> {
  return (await engine.query(CALLING, [page.id, page.claimNo, key, cautious])).length > 0
}

/** Ends a page: its counts are the run's now. Returns the queue of the steward's job, when that was woken. */
export async function finishPage(
  engine: EngineStatements,
  page: { runId: string; id: string; claimNo: number; calls: number; spent: number },
): Promise<string | null> {
  const values = [page.runId, page.id, page.claimNo, page.calls, page.spent]
  const [woken] = await engine.query<{ queue: string }>(FINISH, values)
  return woken?.queue ?? null
}
