import { TriphaseError } from './errors.ts'

/** A length of time: milliseconds as a number, or a number with a unit, such as `'250ms'`, `'150s'`, `'5m'`, `'2h'`, `'7d'`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** What a timer of Node can wait; with more it fires at once. */
export const LONGEST_TIMER_MS = 2_147_483_647

/** What counts as never: a longer delay is cut to it, so that no time is too late for a timestamp of Postgres. */
export const LONGEST_DELAY_MS: number = 10 * 365 * 86_400_000

/**
 * Turns a {@link Duration} into milliseconds.
 *
 * @throws {TriphaseError} `INVALID_DURATION` when it is negative, not finite or not of that form.
 * @example
 * milliseconds('150s') // 150000
 */
export function milliseconds(duration: Duration): number {
  const value = typeof duration === 'number' ? duration : parse(duration)
  if (!Number.isFinite(value) || value < 0) {
    throw new TriphaseError(
      'INVALID_DURATION',
      `${typeof duration === 'number' ? duration : JSON.stringify(duration)} is not a length of time. Write milliseconds as a number, or a number with ms, s, m, h or d, such as '150s'.`,
    )
  }
  return value
}

function parse(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
  return match ? Number(match[1]) * (UNITS[match[2] as string] as number) : Number.NaN
}
