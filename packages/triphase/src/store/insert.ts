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

/** What became of one enqueued job. */
export interface InsertedJob {
  id: string
  /** False when another job holds the unique key, a live one or (`uniqueFor`) one that is over: then `id` is that job's. */
  created: boolean
}

/** Runs one statement: the engine's own pool, or the caller's transaction. */
export type RunStatement = (text: string, values: readonly unknown[]) => Promise<unknown[]>

const INSERT = /* sql */ `
SELECT triphase.insert_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_ALIKE = /* sql */ `
SELECT triphase.insert_alike_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_ONE = /* sql */ `
SELECT triphase.insert_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_UNIQUE = /* sql */ `
SELECT key, id, created FROM triphase.insert_unique_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

// Both in one statement, so that all are written or none.
const INSERT_BOTH = /* sql */ `
SELECT key, id, created
FROM triphase.insert_unique_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
UNION ALL
SELECT NULL, triphase.insert_jobs($14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24)::text, true`

/** Writes jobs without unique keys, in one statement; ids come in the order of the jobs. */
export async function insertJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const [first] = jobs
  if (!first) return []
  let written: Promise<unknown[]>
  if (jobs.length === 1) written = run(INSERT_ONE, values(first, first.input))
  else if (jobs.every((job) => isLike(job, first)))
    written = run(
      INSERT_ALIKE,
      values(
        first,
        jobs.map((job) => job.input),
      ),
    )
  else written = run(INSERT, columns(jobs))
  const [row] = (await written) as [{ ids: string }]
  return arrayOfIds(row.ids).map((id) => ({ id, created: true }))
}

/**
 * Writes jobs of which some or all have unique keys, in one statement; a job whose key is taken is not written, and the
 * holder's id is returned.
 */
export async function insertUniqueJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const unique = jobs.filter((job) => job.uniqueKey !== null)
  const plain = jobs.filter((job) => job.uniqueKey === null)
  const { holders, ids } = await writeKeys(run, unique, plain)
  const [given, rest] = [new Set<string>(), ids.values()]
  return jobs.map((job) =>
    job.uniqueKey === null
      ? { id: rest.next().value as string, created: true }
      : answerFor(job, holders, given),
  )
}

const UNIQUE_TRIES = 20

interface KeyRow {
  /** Null: the ids of the jobs without one. */
  key: string | null
  id: string
  created: boolean
}

/** Returns who holds each key, and the ids of the jobs without one, which are written with the first statement. */
async function writeKeys(
  run: RunStatement,
  unique: readonly NewJob[],
  plain: readonly NewJob[],
): Promise<{ holders: Map<string, InsertedJob>; ids: string[] }> {
  const holders = new Map<string, InsertedJob>()
  const others = plain.length > 0 ? columns(plain) : []
  let ids: string[] = []
  let missing = firstOfEachKey(unique)
  for (let tries = 0; missing.length > 0 && tries < UNIQUE_TRIES; tries++) {
    const keys = [missing.map((job) => job.uniqueKey), missing.map((job) => job.uniqueForMs)]
    const both = tries === 0 && others.length > 0
    const values = [...columns(missing), ...keys, ...(both ? others : [])]
    for (const { key, id, created } of (await run(both ? INSERT_BOTH : INSERT_UNIQUE, values)) as KeyRow[]) {
      if (key === null) ids = arrayOfIds(id)
      else holders.set(key, { id, created })
    }
    missing = missing.filter((job) => !holders.has(job.uniqueKey as string))
  }
  return { holders, ids }
}

function firstOfEachKey(jobs: readonly NewJob[]): NewJob[] {
  const byKey = new Map<string, NewJob>()
  for (const job of jobs) if (!byKey.has(job.uniqueKey as string)) byKey.set(job.uniqueKey as string, job)
  return [...byKey.values()].sort((a, b) => ((a.uniqueKey as string) < (b.uniqueKey as string) ? -1 : 1))
}

/** Of several jobs with one key in one call only the first is written. */
function answerFor(job: NewJob, holders: Map<string, InsertedJob>, given: Set<string>): InsertedJob {
  const key = job.uniqueKey as string
  const answer = holders.get(key)
  if (!answer) throw new Error(`the unique key ${key} changed hands ${UNIQUE_TRIES} times in a row`)
  const created = answer.created && !given.has(key)
  given.add(key)
  return { id: answer.id, created }
}

/** Whether two jobs differ in nothing but their input. */
function isLike(a: NewJob, b: NewJob): boolean {
  return (
    a.task === b.task &&
    a.queue === b.queue &&
    a.priority === b.priority &&
    a.maxAttempts === b.maxAttempts &&
    a.maxCrashes === b.maxCrashes &&
    a.timeoutMs === b.timeoutMs &&
    a.delayMs === b.delayMs &&
    a.runAt === b.runAt &&
    a.traceparent === b.traceparent &&
    a.tags.length === 0 &&
    b.tags.length === 0
  )
}

/** @param input of one job, or of each of many that are like it. */
function values(job: NewJob, input: string | string[]): unknown[] {
  const { task, queue, priority, maxAttempts, maxCrashes, timeoutMs, delayMs, runAt, tags, traceparent } = job
  const settings = [task, queue, priority, maxAttempts, maxCrashes, timeoutMs]
  return [...settings, input, delayMs, runAt, tags.length > 0 ? tags : null, traceparent]
}

function columns(jobs: readonly NewJob[]): unknown[] {
  return [
    jobs.map((job) => job.task),
    jobs.map((job) => job.queue),
    jobs.map((job) => job.priority),
    jobs.map((job) => job.maxAttempts),
    jobs.map((job) => job.maxCrashes),
    noneIfAllNull(jobs.map((job) => job.timeoutMs)),
    jobs.map((job) => job.input),
    jobs.map((job) => job.delayMs),
    noneIfAllNull(jobs.map((job) => job.runAt)),
    noneIfAllNull(jobs.map((job) => (job.tags.length > 0 ? textArrayLiteral(job.tags) : null))),
    noneIfAllNull(jobs.map((job) => job.traceparent)),
  ]
}

/** Of '7', or of '{7,8,9}': one value, as rows of one id each cost more than the ids. */
export function arrayOfIds(text: string): string[] {
  return text.replace(/[{}]/g, '').split(',')
}

/** unnest fills what is shorter with nulls. */
export function noneIfAllNull<Value>(values: (Value | null)[]): (Value | null)[] {
  return values.every((value) => value === null) ? [] : values
}

/** unnest flattens arrays of arrays, so the texts of each row travel as one. */
export function textArrayLiteral(values: readonly string[]): string {
  return `{${values.map((value) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`).join(',')}}`
}

/** Statements on the engine's own pool. */
export function onEnginePool(database: Database): RunStatement {
  return (text, values) => database.query(text, values)
}
