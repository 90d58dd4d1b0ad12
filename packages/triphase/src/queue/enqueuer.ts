import { NaturalBatches } from '../batches.ts'
import { type Duration, LONGEST_DELAY_MS, milliseconds } from '../duration.ts'
import { TriphaseError } from '../errors.ts'
import { PRIORITIES } from '../job.ts'
import type { Hint } from '../notifier.ts'
import { type Database, isDataError } from '../store/database.ts'
import {
  type InsertedJob,
  insertJobs,
  insertUniqueJobs,
  type NewJob,
  onEnginePool,
  type RunStatement,
} from '../store/insert.ts'
import {
  isStorableText,
  jsonText,
  optionFaults,
  STORABLE_TEXT,
  type TaskOptions,
  type TaskReference,
  validated,
} from '../task.ts'
import type { Telemetry } from '../telemetry.ts'

/** How one job differs from its task's defaults. */
export interface EnqueueOptions extends Omit<TaskOptions, 'backoff'> {
  /** Due this long from now. */
  delay?: Duration
  /** Due at this time. */
  runAt?: Date
  /** Words to find the job by. */
  tags?: readonly string[]
  /** While a live job holds this key, no other is written with it. */
  uniqueKey?: string
  /** The key stays taken at least this long, even when the job finishes before. */
  uniqueFor?: Duration
}

const OPTION_NAMES = new Set(['delay', 'runAt', 'tags', 'uniqueKey', 'uniqueFor'])

interface Waiting {
  job: NewJob
  resolve: (inserted: InsertedJob) => void
  reject: (error: unknown) => void
}

const LARGEST_BATCH = 500

/** Checks inputs and options, and writes jobs; nothing is written unless all of them are right. */
export class Enqueuer {
  readonly #telemetry: Telemetry
  readonly #onPool: RunStatement
  // With 16 callers at once, medians of one run (jobs/s): bare INSERTs on 16 connections 8,000, one write at a time
  // 14,200, two 11,500, three 12,900.
  readonly #singles = new NaturalBatches<Waiting>((batch) => this.#writeSingles(batch), LARGEST_BATCH)

  constructor(database: Database, telemetry: Telemetry) {
    this.#onPool = onEnginePool(database)
    this.#telemetry = telemetry
  }

  /**
   * @param run the caller's transaction; undefined: the engine's own pool.
   * @returns what was written, in the order given, and the hints to send once it is committed.
   */
  async enqueue<RawInput>(
    run: RunStatement | undefined,
    task: TaskReference<RawInput>,
    items: readonly { input: RawInput; options: EnqueueOptions }[],
  ): Promise<{ inserted: InsertedJob[]; hints: Hint[] }> {
    const jobs = await checkedJobs(task, items)
    const [only] = jobs
    const inserted =
      run === undefined && only && jobs.length === 1 && only.uniqueKey === null
        ? [await this.#writeSingle(only)]
        : await insertAll(run ?? this.#onPool, jobs)
    const written = jobs.filter((_job, index) => inserted[index]?.created)
    this.#report(task, inserted, jobs)
    return { inserted, hints: hintsOf(written) }
  }

  #writeSingle(job: NewJob): Promise<InsertedJob> {
    return new Promise((resolve, reject) => this.#singles.add({ job, resolve, reject }))
  }

  /** What the database refuses of one job is that caller's error alone. */
  async #writeSingles(batch: readonly Waiting[]): Promise<void> {
    try {
      const inserted = await insertJobs(
        this.#onPool,
        batch.map(({ job }) => job),
      )
      for (const [index, { resolve }] of batch.entries()) resolve(inserted[index] as InsertedJob)
    } catch (error) {
      if (batch.length > 1 && isDataError(error)) {
        for (const single of batch) await this.#writeSingles([single])
      } else for (const { reject } of batch) reject(error)
    }
  }

  #report(task: TaskReference<unknown>, inserted: readonly InsertedJob[], jobs: readonly NewJob[]): void {
    if (!this.#telemetry.hears('job:enqueued')) return
    const written = new Map<string, string[]>()
    for (const [index, { queue }] of jobs.entries()) {
      const { id, created } = inserted[index] as InsertedJob
      if (!created) continue
      const jobIds = written.get(queue)
      if (jobIds) jobIds.push(id)
      else written.set(queue, [id])
    }
    for (const [queue, jobIds] of written)
      this.#telemetry.emit('job:enqueued', { jobIds, task: task.name, queue })
  }
}

function insertAll(run: RunStatement, jobs: readonly NewJob[]): Promise<InsertedJob[]> {
  return jobs.some((job) => job.uniqueKey !== null) ? insertUniqueJobs(run, jobs) : insertJobs(run, jobs)
}

async function checkedJobs<RawInput>(
  task: TaskReference<RawInput>,
  items: readonly { input: RawInput; options: EnqueueOptions }[],
): Promise<NewJob[]> {
  const jobs: NewJob[] = []
  const faults: string[] = []
  const subject = `The input of ${task.name}`
  for (const [index, { input, options }] of items.entries()) {
    const found = enqueueFaults(options)
    try {
      const json = jsonText(input, subject)
      // What is checked is what a worker will see: a Date that arrives there as text is refused here, not there.
      const checked = validated(task.input, JSON.parse(json), 'INVALID_INPUT', subject)
      // Most schemas answer at once, and a turn of the event loop for each of many jobs would be most of what they cost.
      if (checked instanceof Promise) await checked
      if (found.length === 0) jobs.push(newJob(task, json, options))
    } catch (error) {
      if (!(error instanceof TriphaseError)) throw error
      found.push(error.message)
    }
    if (found.length > 0)
      faults.push(...found.map((fault) => (items.length > 1 ? `[${index}] ${fault}` : fault)))
  }
  if (faults.length > 0) throw new TriphaseError('INVALID_INPUT', faults.join('\n'))
  return jobs
}

/** Names each option that is unknown or out of range. */
function enqueueFaults(options: EnqueueOptions): string[] {
  if (Object.keys(options).length === 0) return []
  const taskOptions = Object.entries(options).filter(
    ([name, value]) => value !== undefined && !OPTION_NAMES.has(name),
  )
  const faults = optionFaults(Object.fromEntries(taskOptions), [...OPTION_NAMES])
  if (taskOptions.some(([name]) => name === 'backoff'))
    faults.push('backoff: it belongs to the task, not to one job')
  for (const name of ['delay', 'uniqueFor'] as const) {
    const value = options[name]
    if (value !== undefined && !isDelay(value))
      faults.push(`${name}: a length of time up to 10 years, such as '5m'`)
  }
  if (options.runAt !== undefined && !isStorableDate(options.runAt))
    faults.push('runAt: a valid date, of the year 1 or later')
  if (options.delay !== undefined && options.runAt !== undefined)
    faults.push('delay and runAt: only one of them')
  if (options.uniqueFor !== undefined && options.uniqueKey === undefined)
    faults.push('uniqueFor: needs a uniqueKey')
  if (options.uniqueKey !== undefined && !isStorableText(options.uniqueKey))
    faults.push(`uniqueKey: ${STORABLE_TEXT}`)
  const tags: unknown = options.tags ?? []
  if (!Array.isArray(tags)) return [...faults, 'tags: a list of words']
  for (const [index, tag] of tags.entries()) {
    if (!isStorableText(tag)) faults.push(`tags.${index}: ${STORABLE_TEXT}`)
  }
  return faults
}

function isDelay(value: Duration): boolean {
  try {
    return milliseconds(value) <= LONGEST_DELAY_MS
  } catch {
    return false
  }
}

/** Postgres' timestamps end long after those of JavaScript, and begin long after them too. */
function isStorableDate(value: unknown): boolean {
  return value instanceof Date && value.getUTCFullYear() >= 1
}

function newJob(task: TaskReference<unknown>, input: string, options: EnqueueOptions): NewJob {
  const defaults = task.options
  return {
    task: task.name,
    input,
    queue: options.queue ?? defaults.queue ?? 'default',
    priority: PRIORITIES.indexOf(options.priority ?? defaults.priority ?? 'normal'),
    maxAttempts: options.maxAttempts ?? defaults.maxAttempts ?? 10,
    maxCrashes: options.maxCrashes ?? defaults.maxCrashes ?? 3,
    // Whole ones: '16.1s' is a fraction more than 16,100.
    timeoutMs: options.timeout === undefined ? null : Math.max(1, Math.round(milliseconds(options.timeout))),
    delayMs: milliseconds(options.delay ?? 0),
    runAt: options.runAt ?? null,
    tags: [...(options.tags ?? [])],
    uniqueKey: options.uniqueKey ?? null,
    uniqueForMs: options.uniqueFor === undefined ? null : milliseconds(options.uniqueFor),
    traceparent: null,
  }
}

function hintsOf(jobs: readonly NewJob[]): Hint[] {
  const queues = new Set<string>()
  let soonest = Number.POSITIVE_INFINITY
  for (const job of jobs) {
    const inMs = job.runAt ? job.runAt.getTime() - Date.now() : job.delayMs
    if (inMs > 0) soonest = Math.min(soonest, inMs)
    else queues.add(job.queue)
  }
  const scheduled: Hint[] = Number.isFinite(soonest) ? [{ kind: 'scheduled', inMs: soonest }] : []
  return [...[...queues].map((queue): Hint => ({ kind: 'available', queue })), ...scheduled]
}
