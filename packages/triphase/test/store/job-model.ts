import type { JobState } from '../../src/job.ts'
import type { Database } from '../../src/store/database.ts'

/** What is true of a job, as simply as it can be said. */
export interface ModelJob {
  id: string
  state: JobState
  claimNo: number
  attempt: number
  crashCount: number
  maxCrashes: number
  priority: number
  processId: string | null
  key: string | null
}

const FINAL: readonly JobState[] = ['completed', 'cancelled', 'discarded']

export function isFinal(job: ModelJob): boolean {
  return FINAL.includes(job.state)
}

/** The whole state machine in memory. */
export class JobModel {
  readonly jobs: ModelJob[] = []
  readonly keys = new Map<string, string>()
  readonly requests = new Set<string>()
  processes: string[] = []

  pick(index: number): ModelJob | undefined {
    return this.jobs[index % Math.max(1, this.jobs.length)]
  }

  insert(job: Pick<ModelJob, 'id' | 'state' | 'maxCrashes' | 'priority' | 'key'>): void {
    this.jobs.push({ ...job, claimNo: 0, attempt: 0, crashCount: 0, processId: null })
    if (job.key !== null) this.keys.set(job.key, job.id)
  }

  claim(job: ModelJob, processId: string): void {
    Object.assign(job, { state: 'executing', processId })
    job.claimNo++
    job.attempt++
  }

  finish(job: ModelJob, state: JobState): void {
    job.state = state
    if (job.key !== null) this.keys.delete(job.key)
  }

  waitAgain(job: ModelJob, state: JobState, countsAsAttempt: boolean): void {
    Object.assign(job, { state, processId: null })
    if (!countsAsAttempt) job.attempt--
  }

  cancel(job: ModelJob): 'cancelled' | 'requested' | 'not-found' {
    if (isFinal(job)) return 'not-found'
    if (job.state !== 'executing') {
      this.finish(job, 'cancelled')
      return 'cancelled'
    }
    this.requests.add(job.id)
    return 'requested'
  }

  settleRequests(): void {
    for (const job of this.jobs) {
      if (this.requests.has(job.id) && job.state !== 'executing') this.cancel(job)
      if (isFinal(job)) this.requests.delete(job.id)
    }
  }

  rescue(processId: string): void {
    for (const job of this.jobs.filter(
      (held) => held.state === 'executing' && held.processId === processId,
    )) {
      job.claimNo++
      job.crashCount++
      if (job.crashCount >= job.maxCrashes) this.finish(job, 'discarded')
      else this.waitAgain(job, 'available', false)
    }
    this.processes = this.processes.filter((id) => id !== processId)
  }

  deregister(processId: string): void {
    for (const job of this.jobs.filter(
      (held) => held.state === 'executing' && held.processId === processId,
    )) {
      job.claimNo++
      this.waitAgain(job, 'available', false)
    }
    this.processes = this.processes.filter((id) => id !== processId)
  }

  /** Whether it runs again. */
  retry(job: ModelJob): boolean {
    if (job.state === 'retryable' || job.state === 'scheduled') {
      job.state = 'available'
      return true
    }
    const isTaken = job.key !== null && this.keys.has(job.key)
    if ((job.state !== 'discarded' && job.state !== 'cancelled') || isTaken) return false
    Object.assign(job, { state: 'available', attempt: 0, crashCount: 0, processId: null })
    job.claimNo++
    if (job.key !== null) this.keys.set(job.key, job.id)
    this.requests.delete(job.id)
    return true
  }
}

export interface SeenJob extends ModelJob {
  place: 'job' | 'history'
  position: number
}

const ALL = `
SELECT 'job' AS place, id, state, claim_no, attempt, crash_count, max_crashes, priority, process_id, unique_key, position
FROM triphase.job
UNION ALL
SELECT 'history', id, state, claim_no, attempt, crash_count, max_crashes, priority, process_id, unique_key, 0
FROM triphase.job_history ORDER BY id`

/** Everything that the tables say of jobs. */
export async function seenJobs(database: Database): Promise<SeenJob[]> {
  const rows = await database.query<Record<string, never>>(ALL)
  return rows.map((row) => ({
    place: row.place!,
    id: row.id!,
    state: row.state!,
    claimNo: row.claim_no!,
    attempt: row.attempt!,
    crashCount: row.crash_count!,
    maxCrashes: row.max_crashes!,
    priority: row.priority!,
    processId: row.process_id ?? null,
    key: row.unique_key ?? null,
    position: Number(row.position),
  }))
}
