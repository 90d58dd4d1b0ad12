import type { Backend } from './backend.ts'

/** What a run did with connections. Times are milliseconds. */
export interface ConnectionReport {
  readonly jobs: number
  readonly concurrency: number
  readonly peakEngine: number
  readonly peakApplication: number
  /** Most jobs that were in their call at one time. */
  readonly peakCalls: number
  readonly averageHoldMs: number
  readonly longestHoldMs: number
  /** Time that a job took, on average. */
  readonly averageJobMs: number
}

/** Watches an engine and its application's pool from now on. */
export function watchConnections({ engine, pool, settings }: Backend): () => ConnectionReport {
  const sum = { jobs: 0, holdMs: 0, longestHoldMs: 0, jobMs: 0 }
  const peak = { engine: 0, application: 0, calls: 0 }
  const calling = new Set<string>()
  const look = () => {
    peak.engine = Math.max(peak.engine, engine.connections().engine.open)
    peak.application = Math.max(peak.application, pool.totalCount)
  }
  pool.on('connect', look)
  engine.telemetry.on('pool:held', look)
  engine.telemetry.on('job:phase', ({ jobId, phase }) => {
    if (phase === 'call') calling.add(jobId)
    else calling.delete(jobId)
    peak.calls = Math.max(peak.calls, calling.size)
  })
  for (const end of [
    'job:retried',
    'job:discarded',
    'job:cancelled',
    'job:handed-back',
    'job:lost',
  ] as const) {
    engine.telemetry.on(end, ({ jobId }) => calling.delete(jobId))
  }
  engine.telemetry.on('job:completed', ({ ledger, durationMs }) => {
    sum.jobs++
    sum.holdMs += ledger.holdMs
    sum.jobMs += durationMs
    sum.longestHoldMs = Math.max(sum.longestHoldMs, ledger.longestHoldMs)
  })
  return () => {
    look()
    const each = (total: number) => (sum.jobs === 0 ? 0 : total / sum.jobs)
    return {
      jobs: sum.jobs,
      concurrency: settings.concurrency,
      peakEngine: peak.engine,
      peakApplication: peak.application,
      peakCalls: peak.calls,
      averageHoldMs: each(sum.holdMs),
      longestHoldMs: sum.longestHoldMs,
      averageJobMs: each(sum.jobMs),
    }
  }
}
