import { analysisError } from './analyse-capture.ts'
import type { Backend } from './backend.ts'
import { isAway, outage } from './database.ts'
import { printable } from './terminal.ts'

const SAME_AGAIN_MS = 30_000

/**
 * Says why things take their time: calls that failed and are made again, writes that the database refuses for now.
 * Trouble of one kind is told every half minute at most. An outage of the database is told by those who wait for it.
 */
export function tellTroubles({ engine, settings }: Backend, tell: (line: string) => void): void {
  const told = new Map<string, number>()
  const tellOnce = (code: string, line: string) => {
    const now = performance.now()
    if (now - (told.get(code) ?? Number.NEGATIVE_INFINITY) < SAME_AGAIN_MS) return
    told.set(code, now)
    tell(printable(line))
  }
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
