import type { Ledger, PhaseLedger } from '../telemetry.ts'

type Sums = Omit<PhaseLedger, 'durationMs'>

const NOTHING: Readonly<PhaseLedger> = { durationMs: 0, checkouts: 0, waitMs: 0, holdMs: 0 }

/** The connection time of one claim, phase by phase, while it goes on. */
export class ClaimLedger {
  readonly #phases = new Map<string, PhaseLedger>()
  readonly #sums: Sums = { checkouts: 0, waitMs: 0, holdMs: 0 }
  readonly #open = new Set<{ phase: string | undefined; since: number }>()
  #longestHoldMs = 0
  #phase: { name: string; since: number } | undefined

  get phase(): string | undefined {
    return this.#phase?.name
  }

  get checkouts(): number {
    return this.#sums.checkouts
  }

  /** Closes the phase that the claim is in and opens the next. */
  enterPhase(name: string | undefined): void {
    const now = performance.now()
    if (this.#phase) this.#of(this.#phase.name).durationMs += now - this.#phase.since
    this.#phase = name === undefined ? undefined : { name, since: now }
  }

  /** A connection was checked out, which was waited for so long. The function that is returned gives it back. */
  checkedOut(waitMs: number): () => void {
    const hold = { phase: this.phase, since: performance.now() }
    this.#open.add(hold)
    this.#add(hold.phase, { checkouts: 1, waitMs, holdMs: 0 })
    return () => {
      if (!this.#open.delete(hold)) return
      const holdMs = performance.now() - hold.since
      this.#add(hold.phase, { checkouts: 0, waitMs: 0, holdMs })
      this.#longestHoldMs = Math.max(this.#longestHoldMs, holdMs)
    }
  }

  /** All of it up to now, what is still going on included. */
  read(): Ledger {
    const now = performance.now()
    const sums = { ...this.#sums }
    const phases = new Map([...this.#phases].map(([name, phase]) => [name, { ...phase }]))
    const phaseOf = (name: string) => {
      const phase = phases.get(name) ?? { ...NOTHING }
      phases.set(name, phase)
      return phase
    }
    let longestHoldMs = this.#longestHoldMs
    if (this.#phase) phaseOf(this.#phase.name).durationMs += now - this.#phase.since
    for (const { phase, since } of this.#open) {
      const holdMs = now - since
      sums.holdMs += holdMs
      if (phase !== undefined) phaseOf(phase).holdMs += holdMs
      longestHoldMs = Math.max(longestHoldMs, holdMs)
    }
    return {
      checkouts: sums.checkouts,
      waitMs: rounded(sums.waitMs),
      holdMs: rounded(sums.holdMs),
      longestHoldMs: rounded(longestHoldMs),
      phases: Object.fromEntries([...phases].map(([name, phase]) => [name, roundedPhase(phase)])),
    }
  }

  #of(phase: string): PhaseLedger {
    const known = this.#phases.get(phase)
    if (known) return known
    const fresh = { ...NOTHING }
    this.#phases.set(phase, fresh)
    return fresh
  }

  #add(phase: string | undefined, more: Sums): void {
    for (const sums of phase === undefined ? [this.#sums] : [this.#sums, this.#of(phase)]) {
      sums.checkouts += more.checkouts
      sums.waitMs += more.waitMs
      sums.holdMs += more.holdMs
    }
  }
}

function roundedPhase({ durationMs, checkouts, waitMs, holdMs }: PhaseLedger): PhaseLedger {
  return { durationMs: rounded(durationMs), checkouts, waitMs: rounded(waitMs), holdMs: rounded(holdMs) }
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}
