import { setTimeout as delay } from 'node:timers/promises'
import type { Sweep, SweepStatus } from 'triphase'
import { type Backend, type BackendParts, openSweepBackend } from './backend.ts'
import { type WhenReachable, whileAway } from './database.ts'
import { type ExitCode, untilSignal } from './interrupt.ts'
import { type Progress, showProgress } from './progress.ts'
import type { Settings } from './settings.ts'
import { firstPart, printable } from './terminal.ts'
import { CallFailures, tellTroubles } from './troubles.ts'
import { counted } from './words.ts'

/** A backend that runs one sweep, and what a command says and asks while it does. */
export interface SweepRun<S extends Sweep = Sweep> {
  readonly backend: Backend & { readonly sweep: S }
  readonly progress: Progress
  readonly failures: Pick<CallFailures, 'last'>
  readonly whenReachable: WhenReachable
  readonly signal: AbortSignal
  say(...lines: string[]): void
}

/** What a sweep makes its calls with. */
export interface CallParts extends BackendParts {
  /** What to throw when a call failed. */
  callFailed(error: unknown, signal: AbortSignal): unknown
}

/** A command that goes over records with one sweep. */
export interface SweepCommand<S extends Sweep> {
  readonly settings: Settings
  /** What its records are called. */
  readonly noun: string
  define(parts: CallParts): S
  /** The whole of it; true when all records are done. */
  work(run: SweepRun<S>): Promise<boolean>
}

const STOP_GRACE_MS = 10_000
const OUTAGE_MS = 600_000
const LOOK_EVERY_MS = 200
const GROUPS = 5
const LONGEST_REASON = 200
const OPEN = ['planned', 'running', 'interrupted', 'pausing', 'completing']

/**
 * Runs a command to its end or to a signal's.
 *
 * @returns 0 when all records are done, 1 when some are not, 130 or 143 when a signal ended it.
 */
export async function runSweepCommand<S extends Sweep>(
  command: SweepCommand<S>,
  out: NodeJS.WriteStream,
): Promise<ExitCode> {
  const progress = showProgress(out, command.noun)
  const say = (...lines: string[]) => {
    for (const line of lines) progress.say(line)
  }
  const failures = new CallFailures(say)
  return untilSignal(async (signal) => {
    const callFailed: CallParts['callFailed'] = (error, by) => failures.add(error, by)
    const define = (parts: BackendParts) => command.define({ ...parts, callFailed })
    const backend = await openSweepBackend(command.settings, define, say, signal)
    const whenReachable = whileAway({
      tell: say,
      revive: backend.reviveDatabase,
      signal,
      atMostMs: OUTAGE_MS,
    })
    tellTroubles(backend, say)
    return {
      async work() {
        const done = await command.work({ backend, progress, failures, whenReachable, signal, say })
        await backend.engine.stop({ graceMs: STOP_GRACE_MS })
        return done ? 0 : 1
      },
      stop: () => stop(backend, progress, command.noun),
      async close() {
        progress.stop()
        await backend.close(0)
      },
    }
  })
}

/** Begins a run or goes on with the one that is open, and follows it to its end; a paused one goes on, too. */
export async function followRun({ backend, ...run }: SweepRun): Promise<SweepStatus> {
  const control = backend.engine.sweep(backend.sweep)
  const { concurrency } = backend.settings
  await run.whenReachable(async () => {
    const { state } = await control.run({ concurrency })
    if (state === 'paused' || state === 'pausing') await control.resume()
  })
  const first = await run.whenReachable(() => control.status())
  const known = first.done
  if (first.done + first.errors > 0) {
    run.say(`Goes on where it was: ${counted(first.done + first.errors, 'record')} were done before.`)
  }
  const tellWait = waitTeller(run.say)
  for (let status = first; ; status = await run.whenReachable(() => control.status())) {
    run.signal.throwIfAborted()
    const total = status.total ?? status.done + status.errors
    if (status.total !== null)
      run.progress.update({ total, completed: status.done, failed: status.errors, known })
    tellWait(status)
    if (!OPEN.includes(status.state)) return status
    // The process that drove it is gone: this one takes its place.
    if (status.state === 'interrupted') await run.whenReachable(() => control.run())
    await delay(LOOK_EVERY_MS, undefined, { signal: run.signal }).catch(() => {})
  }
}

const TOLD_FROM_MS = 2_000
const SAME_AGAIN_MS = 30_000

/** Says that calls wait because somebody asked for it: 429s are nobody's error. */
function waitTeller(say: SweepRun['say']): (status: SweepStatus) => void {
  let toldAt = Number.NEGATIVE_INFINITY
  return ({ slowMs }) => {
    const now = performance.now()
    if (slowMs < TOLD_FROM_MS || now - toldAt < SAME_AGAIN_MS) return
    toldAt = now
    say(`The other side asks to wait: calls go on in ${Math.ceil(slowMs / 1_000)} s.`)
  }
}

/** Makes records that are marked as errors pending again. */
export async function retryErrors({ backend, whenReachable, say }: SweepRun): Promise<void> {
  const count = await whenReachable(() => backend.engine.sweep(backend.sweep).retryErrors({ all: true }))
  say(count === 0 ? 'There are no errors to try again.' : `Tries ${counted(count, 'error')} again.`)
}

/** Why records are not done, in lines; none when all are. */
export async function troubleLines(
  { backend, failures, whenReachable }: SweepRun,
  status: SweepStatus,
  left: { readonly errors: number; readonly pending: number },
): Promise<string[]> {
  const control = backend.engine.sweep(backend.sweep)
  const groups = left.errors > 0 ? await whenReachable(() => control.errorGroups(GROUPS)) : []
  const errors = groups.map(
    ({ count, example }) => `${count} x ${firstPart(printable(example), LONGEST_REASON)}`,
  )
  const stopped = status.state === 'completed' ? [] : [stopLine(status, failures.last ?? groups[0]?.example)]
  const again = [
    ...(left.pending > 0 ? ['Run the same command again for the rest.'] : []),
    ...(left.errors > 0 ? ['Run the same command with --retry-errors to try the errors again.'] : []),
  ]
  const lines = [...errors, ...stopped, ...again]
  return lines.length > 0 ? ['', ...lines] : []
}

/** How many records are done, failed and left, by their rows. */
export async function countsOf({
  backend,
  whenReachable,
}: SweepRun): Promise<{ total: number; done: number; errors: number; pending: number }> {
  const { pending, done, errors } = await whenReachable(() => backend.engine.sweep(backend.sweep).plan())
  return { total: pending + done + errors, done, errors, pending }
}

/** A breaker counts calls; why they failed is what somebody has to know. */
function stopLine({ state, reason }: SweepStatus, failure: string | undefined): string {
  if (!reason) return `The run is ${state}.`
  const why = failure ? ` The last failure: ${firstPart(printable(failure), LONGEST_REASON)}` : ''
  return `The run is ${state}: ${printable(reason)}.${why}`
}

async function stop({ engine, sweep }: Backend & { sweep: Sweep }, progress: Progress, noun: string) {
  progress.stop()
  progress.say(
    `Stopping: calls under way get ${STOP_GRACE_MS / 1_000} s to finish. Ctrl-C again ends at once.`,
  )
  await engine.stop({ graceMs: STOP_GRACE_MS })
  // Over the application's connections, which are still there; not when the database is away, too.
  const counts = await engine
    .sweep(sweep)
    .plan()
    .catch(() => null)
  const settled = counts && counts.done + counts.errors
  const state = counts
    ? `Stopped with ${settled} of ${counted(counts.pending + (settled ?? 0), noun)} done.`
    : 'Stopped.'
  progress.say(
    `${state} Run the same command again ${counts?.pending === 0 ? 'to see the results' : 'for the rest'}.`,
  )
}
