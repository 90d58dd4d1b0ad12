import type { RunRow } from '../store/sweep-run.ts'
import { FINAL_STATES, type RunState, shownState } from './states.ts'

/** How a run stands, from the database: every process sees the same. Lengths of time are milliseconds. */
export interface SweepStatus {
  runId: string
  state: RunState
  /** Why it paused itself or failed. */
  reason: string | null
  /** Records pending when it began, and those that came since and are through; null: not counted yet. */
  total: number | null
  /** The planner's estimate, for very large tables. */
  totalEstimated: boolean
  /** Records that this run has marked. */
  done: number
  errors: number
  calls: number
  spent: number
  /** Calls that may be under way at this moment. */
  slots: number
  concurrency: number
  /** Calls a second at most; null: no limit. */
  rate: number | null
  budget: { calls: number | null; spend: number | null }
  /** Records marked a second, over the last minute of running; null: too early to say. */
  recordsPerSecond: number | null
  /** Until it is through at that rate, pauses left out; null: nobody knows. */
  etaMs: number | null
  /** How long it has run, pauses left out. */
  activeMs: number
  /** An API asked not to be called for so long. */
  slowMs: number
  createdAt: Date
  startedAt: Date | null
  finishedAt: Date | null
}

export function statusOf(run: RunRow): SweepStatus {
  const settled = run.done + run.errors
  const over = FINAL_STATES.includes(run.state)
  const total = run.total === null ? null : Math.max(run.total, settled)
  const recordsPerSecond = rateOf(run)
  const left = total === null ? null : total - settled
  const knowsEta = recordsPerSecond !== null && recordsPerSecond > 0 && left !== null && !over
  return {
    runId: run.id,
    state: shownState(run),
    reason: run.reason,
    total,
    totalEstimated: run.totalEstimated,
    done: run.done,
    errors: run.errors,
    calls: run.calls,
    spent: run.spent,
    slots: run.slots,
    concurrency: run.concurrency,
    rate: run.rate,
    budget: { calls: run.callBudget, spend: run.spendBudget },
    recordsPerSecond,
    etaMs: knowsEta ? (left / recordsPerSecond) * 1_000 : null,
    activeMs: run.activeMs,
    slowMs: run.slowMs,
    createdAt: run.createdAt,
    startedAt: run.startedAt,
    finishedAt: run.finishedAt,
  }
}

/** The steward notes a moment every 2 s. Without one for so long nobody worked, and that time does not count. */
const SILENCE_MS = 15_000

/** From the oldest moment since a pause, or since nobody worked, to now. */
function rateOf(run: RunRow): number | null {
  if (run.state !== 'running') return null
  const silentUntil = run.samples.findLastIndex(
    ({ at }, index) => at - (run.samples[index - 1]?.at ?? at) > SILENCE_MS,
  )
  const oldest = run.samples[Math.max(0, silentUntil)]
  const last = run.samples.at(-1)
  if (!oldest || !last || run.nowMs - last.at > SILENCE_MS || run.nowMs - oldest.at < 1_000) return null
  return ((run.done + run.errors - oldest.settled) / (run.nowMs - oldest.at)) * 1_000
}
