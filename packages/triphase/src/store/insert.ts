import type { Database } from './database.ts'

/** A job to be written, validated and with every default filled in. Lengths of time are milliseconds. */
export interface NewJob {
  task: string
  queue: string
  priority: number
  input: string
  maxAttempts: number
  maxCrashes: number
  timeoutMs: number | null
  /** Due this long from now; 0 means now. */
  delayMs: number
  /** Due at this time; wins over `delayMs`. */
  runAt: Date | null
  tags: string[]
  uniqueKey: string | null
  /** The key stays taken this long, even if the job finishes before. */
  uniqueForMs: number | null
  traceparent: string | null
}

export interface InsertedJob {
  id: string
  /** False when a live job holds the unique key: then `id` is that job's. */
  created: boolean
}

/** Runs one statement: the engine's own pool, or the caller's transaction. */
export type RunStatement = (text: string, values: readonly unknown[]) => Promise<unknown[]>

// `due` is drawn once a row; a job is available at once unless it is due later.
const INSERT = /* sql */ `
WITH new AS (
  SELECT t.*, coalesce(t.run_at, clock_timestamp() + t.delay_ms * interval '1 millisecond') AS due,
         coalesce(t.run_at > clock_timestamp(), t.delay_ms > 0) AS later
  FROM unnest(
    $1::text[], $2::text[], $3::smallint[], $4::json[], $5::int[], $6::smallint[], $7::int[], $8::float8[],
    $9::timestamptz[], $10::text[], $11::text[]
  ) WITH ORDINALITY AS t(
    task, queue, priority, input, max_attempts, max_crashes, timeout_ms, delay_ms, run_at, tags, traceparent, n
  )
)
INSERT INTO triphase.job
  (task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent)
SELECT task, queue, CASE WHEN later THEN 'scheduled' ELSE 'available' END, priority, due, max_attempts,
       max_crashes, timeout_ms, input, tags::text[], traceparent
FROM new ORDER BY n
RETURNING id::text AS id`

// One job, by far the most common case: a plain VALUES is planned in a fraction of the time of eleven arrays.
const INSERT_ONE = /* sql */ `
INSERT INTO triphase.job
  (task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent)
VALUES (
  $1, $2, CASE WHEN coalesce($9::timestamptz > clock_timestamp(), $8::float8 > 0) THEN 'scheduled' ELSE 'available' END,
  $3, coalesce($9::timestamptz, clock_timestamp() + $8::float8 * interval '1 millisecond'), $4, $5, $6, $7,
  $10::text[], $11)
RETURNING id::text AS id`

// The key decides: whoever gets it writes the job. A key is taken over once its period is over and its job is gone
// (job_pkey). ON CONFLICT waits for a concurrent holder to commit or roll back; keys are given in order, so that two
// such statements cannot deadlock. After that wait the key is read as it is now, its job still as of before the wait:
// so only a key that has not changed since (the same ctid) is taken over, or its new holder's job would seem gone.
// A key that was committed by somebody else while this statement ran is in neither part of the answer: the caller
// asks again.
const INSERT_UNIQUE = /* sql */ `
WITH new AS (
  SELECT t.*, coalesce(t.run_at, clock_timestamp() + t.delay_ms * interval '1 millisecond') AS due,
         coalesce(t.run_at > clock_timestamp(), t.delay_ms > 0) AS later
  FROM unnest(
    $1::text[], $2::text[], $3::smallint[], $4::json[], $5::int[], $6::smallint[], $7::int[], $8::float8[],
    $9::timestamptz[], $10::text[], $11::text[], $12::text[], $13::float8[]
  ) AS t(
    task, queue, priority, input, max_attempts, max_crashes, timeout_ms, delay_ms, run_at, tags, traceparent,
    unique_key, unique_for_ms
  )
), taken AS (
  INSERT INTO triphase.job_unique AS u (key, job_id, expires_at)
  SELECT unique_key, nextval('triphase.job_id'), clock_timestamp() + unique_for_ms * interval '1 millisecond'
  FROM new ORDER BY unique_key
  ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id, expires_at = excluded.expires_at
    WHERE coalesce(u.expires_at <= clock_timestamp(), true)
      AND EXISTS (SELECT FROM triphase.job_unique seen WHERE seen.key = u.key AND seen.ctid = u.ctid)
      AND NOT EXISTS (SELECT FROM triphase.job WHERE job.id = u.job_id)
  RETURNING key, job_id
), inserted AS (
  INSERT INTO triphase.job
    (id, task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent,
     unique_key)
  SELECT taken.job_id, task, queue, CASE WHEN later THEN 'scheduled' ELSE 'available' END, priority, due,
         max_attempts, max_crashes, timeout_ms, input, tags::text[], traceparent, unique_key
  FROM new JOIN taken ON taken.key = new.unique_key
  RETURNING id, unique_key
)
SELECT unique_key AS key, id::text AS id, true AS created FROM inserted
UNION ALL
SELECT u.key, u.job_id::text, false FROM triphase.job_unique u
WHERE u.key = ANY ($12::text[]) AND NOT EXISTS (SELECT FROM taken WHERE taken.key = u.key)`

/** Writes jobs without unique keys, in one statement; ids come in the order of the jobs. */
export async function insertJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const [only] = jobs
  const written = jobs.length === 1 && only ? run(INSERT_ONE, oneRow(only)) : run(INSERT, columns(jobs))
  const rows = (await written) as { id: string }[]
  return rows.map(({ id }) => ({ id, created: true }))
}

const UNIQUE_TRIES = 20

/** Writes jobs with unique keys; a job whose key is taken is not written, and the holder's id is returned. */
export async function insertUniqueJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const found = new Map<string, InsertedJob>()
  let missing = firstOfEachKey(jobs)
  for (let tries = 0; missing.length > 0 && tries < UNIQUE_TRIES; tries++) {
    const keys = [missing.map((job) => job.uniqueKey), missing.map((job) => job.uniqueForMs)]
    const rows = (await run(INSERT_UNIQUE, [...columns(missing), ...keys])) as (InsertedJob & {
      key: string
    })[]
    for (const { key, id, created } of rows) found.set(key, { id, created })
    missing = missing.filter((job) => !found.has(job.uniqueKey as string))
  }
  const given = new Set<string>()
  return jobs.map((job) => answerFor(job, found, given))
}

function firstOfEachKey(jobs: readonly NewJob[]): NewJob[] {
  const byKey = new Map<string, NewJob>()
  for (const job of jobs) if (!byKey.has(job.uniqueKey as string)) byKey.set(job.uniqueKey as string, job)
  return [...byKey.values()].sort((a, b) => ((a.uniqueKey as string) < (b.uniqueKey as string) ? -1 : 1))
}

/** Of several jobs with one key in one call only the first is written. */
function answerFor(job: NewJob, found: Map<string, InsertedJob>, given: Set<string>): InsertedJob {
  const key = job.uniqueKey as string
  const answer = found.get(key)
  if (!answer) throw new Error(`the unique key ${key} changed hands ${UNIQUE_TRIES} times in a row`)
  const created = answer.created && !given.has(key)
  given.add(key)
  return { id: answer.id, created }
}

function oneRow(job: NewJob): unknown[] {
  const {
    task,
    queue,
    priority,
    maxAttempts,
    maxCrashes,
    timeoutMs,
    input,
    delayMs,
    runAt,
    tags,
    traceparent,
  } = job
  const tagsOrNone = tags.length > 0 ? tags : null
  return [
    task,
    queue,
    priority,
    maxAttempts,
    maxCrashes,
    timeoutMs,
    input,
    delayMs,
    runAt,
    tagsOrNone,
    traceparent,
  ]
}

function columns(jobs: readonly NewJob[]): unknown[] {
  return [
    jobs.map((job) => job.task),
    jobs.map((job) => job.queue),
    jobs.map((job) => job.priority),
    jobs.map((job) => job.input),
    jobs.map((job) => job.maxAttempts),
    jobs.map((job) => job.maxCrashes),
    jobs.map((job) => job.timeoutMs),
    jobs.map((job) => job.delayMs),
    jobs.map((job) => job.runAt),
    jobs.map((job) => (job.tags.length > 0 ? textArrayLiteral(job.tags) : null)),
    jobs.map((job) => job.traceparent),
  ]
}

/** unnest flattens arrays of arrays, so the texts of each row travel as one. */
export function textArrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`
}

/** Statements on the engine's own pool. */
export function onEnginePool(database: Database): RunStatement {
  return (text, values) => database.query(text, values)
}
