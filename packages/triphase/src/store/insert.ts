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

const INSERT = /* sql */ `
SELECT triphase.insert_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_ALIKE = /* sql */ `
SELECT triphase.insert_alike_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_ONE = /* sql */ `
SELECT triphase.insert_job($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)::text AS ids`

const INSERT_UNIQUE = /* sql */ `
SELECT key, id, created FROM triphase.insert_unique_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

/** Writes jobs without unique keys, in one statement; ids come in the order of the jobs. */
export async function insertJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const [first] = jobs
  if (!first) return []
  const inputs = jobs.map((job) => job.input)
  let written: Promise<unknown[]>
  if (jobs.length === 1) written = run(INSERT_ONE, values(first, first.input))
  else if (jobs.every((job) => isLike(job, first))) written = run(INSERT_ALIKE, values(first, inputs))
  else written = run(INSERT, columns(jobs, inputs))
  const [row] = (await written) as [{ ids: string }]
  return arrayOfIds(row.ids).map((id) => ({ id, created: true }))
}

const UNIQUE_TRIES = 20

/** Writes jobs with unique keys; a job whose key is taken is not written, and the holder's id is returned. */
export async function insertUniqueJobs(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  const found = new Map<string, InsertedJob>()
  let missing = firstOfEachKey(jobs)
  for (let tries = 0; missing.length > 0 && tries < UNIQUE_TRIES; tries++) {
    const keys = [missing.map((job) => job.uniqueKey), missing.map((job) => job.uniqueForMs)]
    const inputs = missing.map((job) => job.input)
    const rows = (await run(INSERT_UNIQUE, [...columns(missing, inputs), ...keys])) as (InsertedJob & {
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

function columns(jobs: readonly NewJob[], inputs: readonly string[]): unknown[] {
  return [
    jobs.map((job) => job.task),
    jobs.map((job) => job.queue),
    jobs.map((job) => job.priority),
    jobs.map((job) => job.maxAttempts),
    jobs.map((job) => job.maxCrashes),
    noneIfAllNull(jobs.map((job) => job.timeoutMs)),
    inputs,
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
