import { setTimeout as delay } from 'node:timers/promises'
import type { SweepControl, SweepStatus } from 'triphase'
import { explain, isAway } from '../problem.ts'
import type { Progress } from '../progress.ts'
import { isFinal, isOver } from '../status-text.ts'

const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 1_000

export interface FollowOptions {
  progress: Progress
  /** Waits for a paused run to be resumed. */
  wait: boolean
  signal: AbortSignal
}

/**
 * Shows how a run stands until it is over or paused, from the database: every terminal sees the same. A database that
 * goes away meanwhile is waited for.
 *
 * @returns the last status; null when the signal fired first.
 */
export async function follow(
  control: SweepControl,
  { progress, wait, signal }: FollowOptions,
): Promise<SweepStatus | null> {
  let away = false
  for (let pauseMs = FIRST_PAUSE_MS; !signal.aborted; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)) {
    try {
      const status = await control.status()
      away = false
      progress.update(status)
      if (wait ? isFinal(status) : isOver(status)) return status
    } catch (error) {
      if (signal.aborted) break
      if (!isAway(error)) throw error
      if (!away) progress.waiting(explain(error))
      away = true
    }
    await delay(pauseMs, undefined, { signal }).catch(() => {})
  }
  return null
}
