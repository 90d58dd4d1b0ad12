import type { Backend } from './backend.ts'

/** What the jobs of a run did with connections. Times are milliseconds. */
export interface ConnectionReport {
  /** Jobs that this process ran to their end. */
  readonly jobs: number
  readonly concurrency: number
  /** Most jobs that were in their call at one time. */
  readonly peakCalls: number
  readonly engine: { readonly peak: number; readonly size: number }
  readonly application: { readonly peak: number; readonly size: number }
  /** Another one only listened, around a pooler; else the engine's heartbeats share theirs. */
  readonly listener: boolean
  /** For how long all jobs together ran, and held a connection of the application. */
  readonly totalRunMs: number
  readonly totalHoldMs: number
  /** The job that held one for longest, all its holds together; and the longest single hold. */
  readonly mostHoldMs: number
  readonly longestHoldMs: number
}

interface RunningJob {
  startedAt: number
  runMs: number
  holdMs: number
}

const ENDS = ['job:completed', 'job:discarded', 'job:cancelled'] as const
const PAUSES = ['job:retried', 'job:snoozed', 'job:handed-back', 'job:lost'] as const

/** Watches an engine and its application's pool from now on. The attempts of one job count together. */
export class ConnectionWatch {
  readonly #backend: Backend
  readonly #jobs = new Map<string, RunningJob>()
  readonly #calling = new Set<string>()
  readonly #sum = { jobs: 0, totalRunMs: 0, totalHoldMs: 0, mostHoldMs: 0, longestHoldMs: 0 }
  readonly #peak = { engine: 0, application: 0, calls: 0 }

  constructor(backend: Backend) {
    this.#backend = backend
    const { telemetry } = backend.engine
    backend.pool.on('connect', () => this.#look())
    telemetry.on('job:started', ({ jobId }) => this.#started(jobId))
    telemetry.on('job:phase', ({ jobId, phase }) => this.#phase(jobId, phase))
    telemetry.on('pool:held', ({ pool, jobId, holdMs }) => this.#held(pool, jobId, holdMs))
    for (const name of PAUSES) telemetry.on(name, ({ jobId }) => this.#paused(jobId))
    for (const name of ENDS) telemetry.on(name, ({ jobId }) => this.#ended(jobId))
  }

  report(): ConnectionReport {
    this.#look()
    const { concurrency, enginePool, appPool } = this.#backend.settings
    return {
      ...this.#sum,
      concurrency,
      peakCalls: this.#peak.calls,
      engine: { peak: this.#peak.engine, size: enginePool },
      application: { peak: this.#peak.application, size: appPool },
      listener: this.#backend.listener,
    }
  }

  #look(): void {
    const { engine, pool } = this.#backend
    this.#peak.engine = Math.max(this.#peak.engine, engine.connections().engine.open)
    this.#peak.application = Math.max(this.#peak.application, pool.totalCount)
  }

  #started(jobId: string): void {
    const { runMs, holdMs } = this.#jobs.get(jobId) ?? { runMs: 0, holdMs: 0 }
    this.#jobs.set(jobId, { startedAt: performance.now(), runMs, holdMs })
  }

  #phase(jobId: string, phase: string): void {
    if (phase === 'call') this.#calling.add(jobId)
    else this.#calling.delete(jobId)
    this.#peak.calls = Math.max(this.#peak.calls, this.#calling.size)
  }

  #held(pool: 'engine' | 'application', jobId: string | null, holdMs: number): void {
    this.#look()
    if (pool !== 'application') return
    this.#sum.longestHoldMs = Math.max(this.#sum.longestHoldMs, holdMs)
    const job = jobId === null ? undefined : this.#jobs.get(jobId)
    if (job) job.holdMs += holdMs
  }

  #paused(jobId: string): RunningJob | undefined {
    this.#calling.delete(jobId)
    const job = this.#jobs.get(jobId)
    if (job) job.runMs += performance.now() - job.startedAt
    return job
  }

  #ended(jobId: string): void {
    const job = this.#paused(jobId)
    if (!job) return
    this.#jobs.delete(jobId)
    this.#sum.jobs++
    this.#sum.totalRunMs += job.runMs
    this.#sum.totalHoldMs += job.holdMs
    this.#sum.mostHoldMs = Math.max(this.#sum.mostHoldMs, job.holdMs)
  }
}
