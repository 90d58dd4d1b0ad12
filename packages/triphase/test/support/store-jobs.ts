import type { ClaimedJob } from '../../src/job.ts'
import type { Ack } from '../../src/store/ack.ts'
import { claimJobs } from '../../src/store/claim.ts'
import type { Database } from '../../src/store/database.ts'
import { registerProcess } from '../../src/store/heartbeat.ts'
import { insertJobs, insertUniqueJobs, type NewJob, onEnginePool } from '../../src/store/insert.ts'

// Jobs at the level of the store: what the engine does between a user's call and a statement, with its defaults.

export function newJob(details: Partial<NewJob> = {}): NewJob {
  return {
    task: 'task',
    queue: 'queue',
    priority: 2,
    input: '{}',
    maxAttempts: 10,
    maxCrashes: 3,
    timeoutMs: null,
    delayMs: 0,
    runAt: null,
    tags: [],
    uniqueKey: null,
    uniqueForMs: null,
    traceparent: null,
    ...details,
  }
}

/** Writes a job and returns its id. */
export async function insertJob(database: Database, details: Partial<NewJob> = {}): Promise<string> {
  const insert = details.uniqueKey ? insertUniqueJobs : insertJobs
  const [inserted] = await insert(onEnginePool(database), [newJob(details)])
  return inserted!.id
}

export async function insertMany(database: Database, count: number): Promise<string[]> {
  const jobs = Array.from({ length: count }, () => newJob())
  return (await insertJobs(onEnginePool(database), jobs)).map(({ id }) => id)
}

/** Writes the row of a process and returns its id. */
export function insertProcess(database: Database): Promise<string> {
  const process = { name: 'test', host: 'test', pid: 1, machine: null, pidStarted: null }
  const identity = { ...process, deadAfterMs: 0, queues: ['queue'] }
  return registerProcess(database, identity)
}

export async function claim(database: Database, processId: string, limit = 1): Promise<ClaimedJob[]> {
  const marks = [0, 0, 0, 0]
  return (await claimJobs(database, { queue: 'queue', processId, limit, suspects: 1, marks })).jobs
}

/** A new job in the hands of a new process. */
export async function insertClaimed(database: Database, details: Partial<NewJob> = {}): Promise<ClaimedJob> {
  await insertJob(database, details)
  const [job] = await claim(database, await insertProcess(database))
  return job!
}

export function ackOf(
  claimed: { id: string; claimNo: number },
  state: Ack['state'],
  details: Partial<Ack> = {},
): Ack {
  return {
    jobId: claimed.id,
    claimNo: claimed.claimNo,
    state,
    delayMs: 0,
    countsAsAttempt: true,
    result: null,
    error: null,
    attempt: null,
    dropAnswers: null,
    ...details,
  }
}

export interface JobRow {
  place: 'job' | 'history'
  state: string
  claimNo: number
  attempt: number
  crashCount: number
  processId: string | null
}

const ROWS = `
SELECT 'job' AS place, state, claim_no, attempt, crash_count, process_id FROM triphase.job WHERE id = $1
UNION ALL
SELECT 'history', state, claim_no, attempt, crash_count, process_id FROM triphase.job_history WHERE id = $1`

/** The rows of a job, wherever they are: there is never more than one. */
export async function rowsOf(database: Database, id: string): Promise<JobRow[]> {
  const rows = await database.query<Record<string, never>>(ROWS, [id])
  return rows.map((row) => ({
    place: row.place!,
    state: row.state!,
    claimNo: row.claim_no!,
    attempt: row.attempt!,
    crashCount: row.crash_count!,
    processId: row.process_id ?? null,
  }))
}
