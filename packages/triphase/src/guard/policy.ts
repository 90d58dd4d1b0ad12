import type { Allowed, GuardMode, GuardSettings } from '../config.ts'
import type { TelemetryEvents } from '../telemetry.ts'
import { complaint, type Offence, offenceName } from './offence.ts'
import { outside, type TransactionScope, watchCalls } from './scope.ts'

/** What the guard found, as it is reported: once for each place and kind of call. */
export type GuardReport = TelemetryEvents['guard:offence']

const MOST_PLACES = 1_000

/** How transactions of one engine or pool are guarded. */
export class GuardPolicy {
  readonly mode: GuardMode
  readonly maxHoldMs: number | null
  readonly allowed: Allowed
  readonly #tell: (report: GuardReport) => void
  readonly #told = new Set<string>()

  constructor(settings: GuardSettings, tell: (report: GuardReport) => void) {
    this.mode = settings.mode
    this.maxHoldMs = settings.maxHoldMs
    this.allowed = settings.allow
    this.#tell = tell
    if (this.mode !== 'off') watchCalls()
  }

  report(offence: Offence, scope: TransactionScope): void {
    const [what, opened] = [offenceName(offence), scope.openedAt]
    const { kind } = offence
    const { refused, jobId } = scope
    const key = `${kind} ${what} ${opened} ${refused}`
    if (this.#told.has(key) || this.#told.size >= MOST_PLACES) return
    this.#told.add(key)
    const report = { kind, what, opened, message: complaint(offence, opened), refused, jobId }
    outside(() => this.#tell(report))
  }
}

/** How a guard reports that belongs to no engine: what its caller does not get as an error becomes a warning of the process. */
export function warnOf({ refused, message }: GuardReport): void {
  if (!refused) process.emitWarning(message, { type: 'TriphaseWarning', code: 'TRIPHASE_GUARD' })
}
