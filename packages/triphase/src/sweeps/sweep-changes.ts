import { TriphaseError } from '../errors.ts'
import type { RunChanges } from '../store/sweep-run.ts'

/** Settings of a run that can change while it runs, from any process. Null takes a limit away. */
export interface SweepChanges {
  concurrency?: number
  /** Calls a second. */
  rate?: number | null
  budget?: { calls?: number | null; spend?: number | null }
}

/**
 * Changes as a run takes them.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each that cannot be.
 */
export function checkedChanges({ concurrency, rate, budget, ...others }: SweepChanges): RunChanges {
  const faults = Object.keys(others).map((key) => `${key}: there is no such option`)
  const positive = (name: string, value: number | null | undefined) => {
    if (value !== undefined && value !== null && !(Number.isFinite(value) && value > 0)) {
      faults.push(`${name}: a number above 0, or null for no limit`)
    }
  }
  if (
    concurrency !== undefined &&
    !(Number.isInteger(concurrency) && concurrency >= 1 && concurrency <= 10_000)
  ) {
    faults.push('concurrency: a whole number from 1 to 10000')
  }
  positive('rate', rate)
  positive('budget.spend', budget?.spend)
  const calls = budget?.calls ?? 0
  if (!(Number.isSafeInteger(calls) && calls >= 0)) {
    faults.push('budget.calls: a whole number of at least 0, or null for no limit')
  }
  if (faults.length > 0) throw new TriphaseError('INVALID_OPTIONS', faults.join('; '))
  return {
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(rate === undefined ? {} : { rate }),
    ...(budget?.calls === undefined ? {} : { callBudget: budget.calls }),
    ...(budget?.spend === undefined ? {} : { spendBudget: budget.spend }),
  }
}
