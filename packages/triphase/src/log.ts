import { type DestinationStream, type Logger, pino } from 'pino'
import pretty from 'pino-pretty'
import type { Telemetry, TelemetryEvents } from './telemetry.ts'

/** @see createLog */
export interface LogOptions {
  /** `'human'`: a line for people; `'json'`: a line for machines (pino). Default: human on a terminal, JSON elsewhere. */
  format?: 'human' | 'json'
  /** Least level that is written. Default `'info'`. */
  level?: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** Where lines go. Default: stderr, which leaves stdout to the application. */
  destination?: NodeJS.WritableStream
}

/**
 * A pino logger for people or for machines.
 *
 * @example
 * logTelemetry(engine.telemetry, createLog({ format: 'json' }))
 */
export function createLog(options: LogOptions = {}): Logger {
  const destination = options.destination ?? process.stderr
  const format = options.format ?? (isTerminal(destination) ? 'human' : 'json')
  const level = options.level ?? 'info'
  if (format === 'json') return pino({ level, base: null }, destination as DestinationStream)
  return pino(
    { level, base: null },
    pretty({
      destination,
      sync: true,
      ignore: 'event',
      translateTime: 'SYS:HH:MM:ss.l',
      colorize: isTerminal(destination),
    }),
  )
}

function isTerminal(stream: NodeJS.WritableStream): boolean {
  return 'isTTY' in stream && stream.isTTY === true
}

type Level = 'debug' | 'info' | 'warn' | 'error'
type Line<Name extends keyof TelemetryEvents> = (event: TelemetryEvents[Name]) => [Level, string]

const job = ({ task, jobId }: { task: string; jobId: string }) => `${task} ${jobId}`

/** What is worth a line, at which level, and in which words. Inputs, answers and results are never logged. */
const LINES: { [Name in keyof TelemetryEvents]?: Line<Name> } = {
  'job:started': (event) => ['debug', `${job(event)} started, attempt ${event.attempt}`],
  'job:completed': (event) => ['debug', `${job(event)} completed in ${Math.round(event.durationMs)} ms`],
  'job:retried': (event) => [
    'warn',
    `${job(event)} failed and runs again in ${Math.round(event.delayMs)} ms: ${event.error.message}`,
  ],
  'job:snoozed': (event) => ['debug', `${job(event)} snoozed for ${Math.round(event.delayMs)} ms`],
  'job:handed-back': (event) => ['info', `${job(event)} handed back`],
  'job:cancelled': (event) => ['info', `${job(event)} cancelled`],
  'job:discarded': (event) => ['error', `${job(event)} discarded: ${event.error.message}`],
  'job:lost': (event) => [
    'warn',
    `${job(event)} runs again under another claim; what it did here is not acknowledged`,
  ],
  'job:leaked': (event) => ['error', `${job(event)} ignores its signal and keeps its slot: ${event.reason}`],
  'queue:changed': (event) => [
    'info',
    `queue ${event.queue} ${event.paused ? 'is paused' : `runs ${event.concurrency} at a time`}`,
  ],
  'jobs:rescued': (event) => [
    'warn',
    `process ${event.processId} is dead: ${event.again.length} jobs run again, ${event.discarded.length} discarded`,
  ],
  'jobs:strays-returned': (event) => [
    'warn',
    `${event.jobIds.length} jobs were claimed but never arrived; they run again`,
  ],
  'server:found': ({ version, pooler }) =>
    pooler === 'none'
      ? ['debug', `PostgreSQL ${version}`]
      : ['info', `PostgreSQL ${version} behind a pooler in ${pooler} mode`],
  'process:started': (event) => ['info', `process ${event.processId} works`],
  'process:stopping': (event) => [
    'info',
    `stopping: ${event.running} jobs have ${event.graceMs} ms to finish`,
  ],
  'process:stopped': (event) => ['info', `stopped, ${event.handedBack} jobs handed back`],
  'process:lost': (event) => [
    'error',
    `this process was silent for too long and was taken for dead; it is process ${event.processId} now`,
  ],
  'heartbeat:failed': (event) => [
    'warn',
    `heartbeat failed (${event.failures} in a row): ${event.error.message}`,
  ],
  'statement:failed': (event) => [
    // A hint that was not sent costs the others a poll.
    event.retryInMs === null && event.statement !== 'notify' ? 'error' : 'warn',
    `${event.statement} failed${event.retryInMs === null ? '' : `, again in ${Math.round(event.retryInMs)} ms`}: ${event.error.message}`,
  ],
  'notifier:changed': (event) =>
    event.connected
      ? ['info', `notifications arrive (${event.notifier})`]
      : [
          'warn',
          `no notifications (${event.notifier}), polling meanwhile: ${event.error?.message ?? 'not connected'}`,
        ],
  'history:pruned': (event) => [
    'debug',
    `history: ${event.partitionsMade} days made, ${event.partitionsDropped} dropped, ${event.postponed} postponed`,
  ],
  'pool:error': (event) => [
    'warn',
    `a connection of the ${event.pool} pool was closed: ${event.error.message}`,
  ],
  'guard:offence': (event) => ['warn', event.message],
  'config:warning': (event) => ['warn', event.message],
}

/**
 * Writes what the engine reports to a log. Returns the function that ends it. While one statement fails for one reason,
 * as for each waiting job of a database that is away, that is a line every 10 s, which says how often.
 *
 * @example
 * logTelemetry(engine.telemetry, createLog())
 */
export function logTelemetry(telemetry: Telemetry, logger: Logger): () => void {
  const failures = new Failures()
  return telemetry.onAny((name, event) => {
    const line = LINES[name] as ((event: object) => [Level, string]) | undefined
    if (!line) return
    const times =
      name === 'statement:failed' ? failures.count(event as TelemetryEvents['statement:failed']) : 1
    if (times === 0) return
    const [level, message] = line(event)
    const often = times > 1 ? ` (${times} times since it was last said)` : ''
    logger[level]({ event: name, ...identifiers(event) }, `${message}${often}`)
  })
}

const REPEAT_MS = 10_000
/** Failures that are remembered: messages may differ each time. */
const MOST_FAILURES = 100

/** Statements that fail again and again for the same reason. */
class Failures {
  readonly #said = new Map<string, { at: number; unsaid: number }>()

  /** How many failures the line is about that is written now; 0: none is, as one was a moment ago. */
  count({ statement, error, retryInMs }: TelemetryEvents['statement:failed']): number {
    const key = `${retryInMs === null} ${statement} ${error.message}`
    const now = performance.now()
    const last = this.#said.get(key)
    if (last && now - last.at < REPEAT_MS) {
      last.unsaid++
      return 0
    }
    if (this.#said.size >= MOST_FAILURES) this.#said.clear()
    this.#said.set(key, { at: now, unsaid: 0 })
    return 1 + (last?.unsaid ?? 0)
  }
}

const IDENTIFIERS = ['jobId', 'task', 'queue', 'attempt', 'claimNo', 'processId'] as const

function identifiers(event: object): object {
  return Object.fromEntries(
    IDENTIFIERS.filter((key) => key in event).map((key) => [key, event[key as never]]),
  )
}
