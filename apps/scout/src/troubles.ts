import { Permanent, RetryAfter } from 'triphase'
import { analysisError, engineError } from './analyse-capture.ts'
import type { Backend } from './backend.ts'
import { isAway, outage } from './database.ts'
import { classifyFailure } from './models/failures.ts'
import { printable } from './terminal.ts'

const SAME_AGAIN_MS = 30_000

/** Trouble of one kind is told every half minute at most. */
function tellerOf(tell: (line: string) => void): (code: string, line: string) => void {
  const told = new Map<string, number>()
  return (code, line) => {
    const now = performance.now()
    if (now - (told.get(code) ?? Number.NEGATIVE_INFINITY) < SAME_AGAIN_MS) return
    told.set(code, now)
    tell(printable(line))
  }
}

/** Calls of a sweep that failed in this process: those that are made again are told. */
export class CallFailures {
  readonly #tellOnce: (code: string, line: string) => void
  /** What the last one said. */
  last: string | undefined

  constructor(tell: (line: string) => void) {
    this.#tellOnce = tellerOf(tell)
  }

  /** @returns what to throw. */
  add(error: unknown, signal: AbortSignal): unknown {
    if (error instanceof Permanent || error instanceof RetryAfter) {
      this.last = error.message
      return error
    }
    const failure = classifyFailure(error, signal)
    if (failure.kind !== 'aborted') this.last = failure.message
    if (failure.kind === 'transient' || failure.kind === 'bad-answer') {
      this.#tellOnce(failure.code, `${failure.message.replace(/\.?$/, '.')} Trying again later.`)
    }
    return engineError(failure, error)
  }
}

/**
 * Says why things take their time: calls that failed and are made again, writes that the database refuses for now. An
 * outage of the database is told by those who wait for it.
 */
export function tellTroubles({ engine, settings }: Backend, tell: (line: string) => void): void {
  const tellOnce = tellerOf(tell)
  engine.telemetry.on('job:retried', ({ error, delayMs, countsAsAttempt }) => {
    const { code, message } = analysisError(error, settings.callTimeoutMs)
    const reason = isAway(error) ? outage(error) : message.replace(/\.?$/, '.')
    const seconds = Math.max(1, Math.round(delayMs / 1_000))
    tellOnce(code, `${reason} ${countsAsAttempt ? 'Trying' : 'Asking'} again in ${seconds} s.`)
  })
  engine.telemetry.on('statement:failed', ({ error, retryInMs }) => {
    const { code = 'UNEXPECTED', message } = error
    if (retryInMs === null || isAway(error)) return
    tellOnce(code, `The database refuses a statement (${message}). Trying again.`)
  })
}
