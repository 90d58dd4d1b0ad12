import Table from 'cli-table3'
import type { CaptureResult } from './captures.ts'
import type { ConnectionReport } from './connections.ts'
import type { Counts } from './progress.ts'
import { firstPart, lastPart, printable, widthOf } from './terminal.ts'
import { counted, inWords } from './words.ts'

/** An image of the table: what is known of its capture, and what its files are called. */
export interface ReportedImage extends CaptureResult {
  readonly names: readonly string[]
}

/** How much room there is. */
export interface TableSize {
  readonly columns: number
  readonly rows: number
}

const HEAD = ['image', 'analysis', 'observations'] as const
// Borders and the blanks beside them.
const FRAME = 3 * HEAD.length + 1
const NARROWEST_NAME = 12
const NARROWEST_TEXT = 16

/** The images and what was observed in them, as a table that fits; lists of observations are cut with a count. */
export function imageTable(images: readonly ReportedImage[], size: TableSize): string {
  const shown = images.slice(0, size.rows)
  const names = shown.map(({ names: [name = '', ...others] }) =>
    printable(others.length > 0 ? `${name} +${others.length} the same` : name),
  )
  const statusWidth = Math.max(HEAD[1].length, ...shown.map(({ status }) => status.length))
  const room = Math.max(size.columns - FRAME - statusWidth, NARROWEST_NAME + NARROWEST_TEXT)
  const widestName = Math.max(HEAD[0].length, ...names.map(widthOf))
  const nameWidth = Math.min(widestName, Math.max(NARROWEST_NAME, Math.floor(room / 2)))
  const table = new Table({ head: [...HEAD], style: { head: [], border: [], compact: true } })
  for (const [index, image] of shown.entries())
    table.push([lastPart(names[index]!, nameWidth), image.status, summary(image, room - nameWidth)])
  const more = images.length - shown.length
  return more > 0
    ? `${table}\n… and ${more} more; all are in the tables scout.capture and scout.observation.`
    : `${table}`
}

/** `cat 0.93, person 0.81 x3, +2 more`: a label that was seen several times is counted, with its highest confidence. */
function summary({ status, error, observations }: CaptureResult, width: number): string {
  if (status === 'failed') return firstPart(error?.code ?? '', width)
  if (status === 'processing') return ''
  const byLabel = Map.groupBy(observations, ({ label }) => label)
  const parts = [...byLabel].map(([label, [best, ...others]]) => {
    const confidence = best?.confidence == null ? '' : ` ${best.confidence.toFixed(2)}`
    return printable(`${label}${confidence}${others.length > 0 ? ` x${others.length + 1}` : ''}`)
  })
  if (parts.length === 0) return firstPart('nothing recognised', width)
  for (let kept = parts.length; kept > 0; kept--) {
    const rest = parts.length - kept
    const text = [...parts.slice(0, kept), ...(rest > 0 ? [`+${rest} more`] : [])].join(', ')
    if (widthOf(text) <= width) return text
  }
  return firstPart(parts.join(', '), width)
}

/** What became of the images of a run. */
export function summaryLine({ completed, failed, known }: Counts, unread: number, seconds: number): string {
  const parts = [
    ...(completed > known ? [`${completed - known} analysed in ${inWords(seconds)}`] : []),
    ...(known > 0 ? [`${known} known from before`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(unread > 0 ? [`${unread} not looked at`] : []),
  ]
  return `${counted(completed + failed + unread, 'image')}: ${parts.join(', ')}.`
}

/** A line for each image that is not analysed, and why; none when all are. */
export function failureLines(
  images: readonly ReportedImage[],
  unread: readonly { message: string }[],
  stopped: Error | null,
): string[] {
  const lines = [
    ...images
      .filter(({ status }) => status !== 'completed')
      .map(({ names, error }) => `failed: ${names.join(' and ')}: ${error?.message ?? 'not finished'}`),
    ...unread.map(({ message }) => `not read: ${message}`),
    ...(stopped ? [`stopped: ${stopped.message}`] : []),
  ]
  if (lines.length === 0) return []
  return ['', ...lines.map(printable), 'Run the same command again to try these again.']
}

/** How few connections it took, in words: at most 80 columns. */
export function connectionLines(report: ConnectionReport): string[] {
  const { jobs, concurrency, peakCalls, engine, application, totalHoldMs, totalRunMs } = report
  if (jobs === 0) return []
  const listener = report.listener ? ', 1 (listener)' : ''
  const share = (100 * totalHoldMs) / Math.max(totalRunMs, 1)
  return [
    `jobs         ${jobs} run here, up to ${concurrency} at a time; at most ${peakCalls} in their call at once`,
    `connections  at most ${application.peak} of ${application.size} (application), ${engine.peak} of ${engine.size} (engine)${listener}`,
    `hold         ${time(totalHoldMs / jobs)} of the ${time(totalRunMs / jobs)} that a job took on average (${share.toFixed(share < 10 ? 1 : 0)}%)`,
    `             at most ${time(report.mostHoldMs)} by one job, ${time(report.longestHoldMs)} at a stretch; ${time(totalHoldMs)} by all`,
  ]
}

function time(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1_000).toFixed(1)} s`
}
