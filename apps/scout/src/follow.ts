import { setTimeout as delay } from 'node:timers/promises'
import { analysisError } from './analyse-capture.ts'
import type { Backend } from './backend.ts'
import { type CaptureState, captureStates, failAnalysis } from './captures.ts'
import type { WhenReachable } from './database.ts'
import type { Progress } from './progress.ts'
import type { Tally } from './tally.ts'

const LOOK_EVERY_MS = 200
const LOOK_AT_LEAST_EVERY_MS = 2_000
// Looking at tens of thousands of captures takes a while; it may take a tenth of the time.
const LOOK_SHARE = 0.1
const SETTLE_EVERY_MS = 4_000
const SETTLE_AT_ONCE = 50

/** Follows a run in the database until every capture is through, whichever process works on it. */
export async function follow(
  backend: Backend,
  tally: Tally,
  progress: Progress,
  signal: AbortSignal,
  whenReachable: WhenReachable,
): Promise<void> {
  let settledAt = performance.now()
  while (true) {
    signal.throwIfAborted()
    const began = performance.now()
    const { ended, open } = tally
    const states = open.length === 0 ? [] : await whenReachable(() => captureStates(backend.pool, open))
    for (const { captureId, status } of states) if (status !== 'processing') tally.settle(captureId, status)
    progress.update(tally.counts)
    if (ended && tally.open.length === 0) return
    const looked = performance.now()
    if (looked - settledAt > SETTLE_EVERY_MS) {
      await whenReachable(() => settleAbandoned(backend, sample(states)))
      settledAt = looked
    }
    const pauseMs = Math.max(LOOK_EVERY_MS, (looked - began) / LOOK_SHARE)
    await delay(Math.min(LOOK_AT_LEAST_EVERY_MS, pauseMs), undefined, { signal }).catch(() => {})
  }
}

/** A few that are open, other ones each time. */
function sample(states: readonly CaptureState[]): CaptureState[] {
  const open = states.filter(({ status }) => status === 'processing')
  const start = Math.max(0, Math.floor(Math.random() * (open.length - SETTLE_AT_ONCE + 1)))
  return open.slice(start, start + SETTLE_AT_ONCE)
}

/** A job that was cancelled while it waited, or whose processes kept dying, ends without its task being asked. */
async function settleAbandoned(
  { engine, pool, settings }: Backend,
  open: readonly CaptureState[],
): Promise<void> {
  for (const { captureId, jobId } of open) {
    const job = jobId === null ? null : await engine.job(jobId)
    if (job?.state !== 'discarded' && job?.state !== 'cancelled') continue
    const error = (job.error ?? { message: `The job was ${job.state}.` }) as {
      message: string
      code?: string
    }
    await failAnalysis(pool, captureId, analysisError(error, settings.callTimeoutMs))
  }
}
