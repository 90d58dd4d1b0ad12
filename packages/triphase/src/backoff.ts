import { type Duration, milliseconds } from './duration.ts'

/** How long a failed job waits before its next attempt. */
export interface Backoff {
  /** Delay after the first failure. Default 1 s. */
  initial?: Duration
  /** Longest delay. Default 1 h. */
  max?: Duration
  /** Growth from one delay to the next. Default 2. */
  factor?: number
}

/**
 * The delay before the next attempt, in milliseconds: exponential, with equal jitter (half of the delay is fixed and
 * half is random), so that jobs that failed together do not come back together and none comes back at once.
 *
 * Source of the jitter: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
 *
 * @param attempt the attempt that failed, from 1
 * @param random a number from 0 to 1
 * @example
 * backoffDelay(3, {}) // from 2000 to 4000
 */
export function backoffDelay(attempt: number, backoff: Backoff, random: number = Math.random()): number {
  const initial = milliseconds(backoff.initial ?? '1s')
  const max = milliseconds(backoff.max ?? '1h')
  const full = Math.min(max, initial * (backoff.factor ?? 2) ** Math.max(0, attempt - 1))
  return full / 2 + (full / 2) * random
}
