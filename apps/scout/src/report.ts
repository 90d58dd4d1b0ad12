import Table from 'cli-table3'
import type { CaptureResult } from './captures.ts'
import type { ConnectionReport } from './connections.ts'

const LONGEST_CELL = 70

/** The images and what was observed in them, as a table for people. */
export function imageTable(results: readonly CaptureResult[]): string {
  const table = new Table({ head: ['image', 'analysis', 'observations'], style: { head: [], border: [] } })
  for (const result of results)
    table.push([shortened(result.fileName), result.status, shortened(summary(result))])
  return table.toString()
}

/** The same label several times is counted, with the highest confidence: `cat 0.93, person 0.81 x3`. */
function summary({ status, error, observations }: CaptureResult): string {
  if (status === 'failed') return error ?? 'failed'
  const byLabel = Map.groupBy(observations, ({ label, text }) => label || text || '?')
  const parts = [...byLabel].map(([label, group]) => {
    const [best] = group
    const confidence = best?.confidence == null ? '' : ` ${best.confidence.toFixed(2)}`
    return `${label}${confidence}${group.length > 1 ? ` x${group.length}` : ''}`
  })
  return parts.join(', ') || (status === 'completed' ? 'nothing recognised' : '')
}

function shortened(text: string): string {
  return text.length > LONGEST_CELL ? `${text.slice(0, LONGEST_CELL - 1)}…` : text
}

/** How few connections it took, in words. */
export function connectionLines(report: ConnectionReport): string[] {
  const ms = (value: number) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`
  return [
    `jobs         ${report.jobs} by this process, ${report.concurrency} at a time (${report.peakCalls} in their call at once)`,
    `connections  at most ${report.peakApplication} of the application and ${report.peakEngine} of the engine at a time`,
    `held         ${ms(report.averageHoldMs)} by a job on average, ${ms(report.longestHoldMs)} at the longest; a job took ${ms(report.averageJobMs)}`,
  ]
}
