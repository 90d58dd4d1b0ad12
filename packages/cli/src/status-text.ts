import type { SweepStatus } from 'triphase'
import { EXIT, type ExitCode } from './exit-codes.ts'
import { counted, grouped, inWords } from './words.ts'

const FINAL: readonly string[] = ['completed', 'cancelled', 'failed']

/** Whether the run will not go on by itself: it is over, or paused. */
export function isOver({ state }: SweepStatus): boolean {
  return FINAL.includes(state) || state === 'paused'
}

export function isFinal({ state }: SweepStatus): boolean {
  return FINAL.includes(state)
}

/** What a run that is over is for whoever waited for it. */
export function exitCodeOf({ state, errors }: SweepStatus): ExitCode {
  if (state === 'paused') return EXIT.paused
  if (state === 'cancelled' || state === 'failed') return EXIT.notCompleted
  return errors > 0 ? EXIT.recordErrors : EXIT.ok
}

/** `describe-files: paused (20 calls failed in a row)`. */
export function stateLine(name: string, { state, reason }: SweepStatus): string {
  return `${name}: ${state}${reason === null ? '' : ` (${reason})`}`
}

/** How far it is: `1,234 of 12,000 records, 34 of them errors`. */
export function countsText({ done, errors, total, totalEstimated }: SweepStatus): string {
  const settled = grouped(done + errors)
  const all =
    total === null
      ? `${settled} of records that are not counted yet`
      : `${settled} of ${totalEstimated ? 'about ' : ''}${counted(total, 'record')}`
  return errors > 0 ? `${all}, ${grouped(errors)} of them errors` : all
}

/** How quick it is and how long it will take: the parts that are known. */
export function paceParts({ recordsPerSecond, etaMs, slowMs }: SweepStatus): string[] {
  return [
    ...(recordsPerSecond === null ? [] : [`${rateText(recordsPerSecond)}/s`]),
    ...(etaMs === null ? [] : [`about ${inWords(etaMs)} left`]),
    ...(slowMs > 1_000 ? [`the API asked to wait ${inWords(slowMs)}`] : []),
  ]
}

/** All of it, for people. */
export function statusLines(name: string, status: SweepStatus): string[] {
  const { calls, spent, slots, concurrency, rate, budget, activeMs } = status
  const budgets = [
    ...(budget.calls === null ? [] : [`at most ${counted(budget.calls, 'call')}`]),
    ...(budget.spend === null ? [] : [`at most ${grouped(budget.spend)} spent`]),
  ]
  const limits = [
    `${grouped(concurrency)} at a time`,
    ...(rate === null ? [] : [`${grouped(rate)} a second`]),
    ...budgets,
  ]
  return [
    stateLine(name, status),
    `  ${countsText(status)}`,
    `  ${[...paceParts(status), `it has run for ${inWords(activeMs)}`].join(', ')}`,
    `  ${counted(calls, 'call')}${spent > 0 ? `, ${grouped(spent)} spent` : ''}; ${grouped(slots)} under way`,
    `  limits: ${limits.join(', ')}`,
  ]
}

function rateText(perSecond: number): string {
  return perSecond >= 100 ? grouped(Math.round(perSecond)) : perSecond.toFixed(1)
}
