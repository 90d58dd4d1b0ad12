import type { Ledger, PhaseLedger } from '../telemetry.ts'

type Sums = Omit<PhaseLedger, 'durationMs'>

const NOTHING: Readonly<Sums> = { checkouts: 0, waitMs: 0, holdMs: 0, longestHoldMs: 0 }

/** The connection time of one claim, phase by phase, while it goes on. */
export class ClaimLedger {
  readonly #phases = new Map<string, PhaseLedger>()
  readonly #sums: Sums = { ...NOTHING }
  readonly #open = new Set<{ phase: string | undefined; since: number }>()
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
    this.#add(hold.phase, { ...NOTHING, checkouts: 1, waitMs })
    return () => {
      if (!this.#open.delete(hold)) return
      const holdMs = performance.now() - hold.since
      this.#add(hold.phase, { ...NOTHING, holdMs, longestHoldMs: holdMs })
    }
  }

  /** All of it up to now, what is still going on included. */
  read(): Ledger {
    const now = performance.now()
    const sums = { ...this.#sums }
    const phases = new Map([...this.#phases].map(([name, phase]) => [name, { ...phase }]))
    const phaseOf = (name: string) => {
      const phase = phases.get(name) ?? { durationMs: 0, ...NOTHING }
      phases.set(name, phase)
      return phase
    }
    if (this.#phase) phaseOf(this.#phase.name).durationMs += now - this.#phase.since
    for (const { phase, since } of this.#open) {
      const open = { ...NOTHING, holdMs: now - since, longestHoldMs: now - since }
      add(sums, open)
      if (phase !== undefined) add(phaseOf(phase), open)
    }
    return {
      ...roundedSums(sums),
      phases: Object.fromEntries(
        [...phases].map(([name, phase]) => [
          name,
          { durationMs: rounded(phase.durationMs), ...roundedSums(phase) },
        ]),
      ),
    }
  }

  #of(phase: string): PhaseLedger {
    const known = this.#phases.get(phase)
    if (known) return known
    const fresh = { durationMs: 0, ...NOTHING }
    this.#phases.set(phase, fresh)
    return fresh
  }

  #add(phase: string | undefined, more: Sums): void {
    for (const sums of phase === undefined ? [this.#sums] : [this.#sums, this.#of(phase)]) {
      add(sums, more)
    }
  }
}

function add(sums: Sums, more: Sums): void {
  sums.checkouts += more.checkouts
  sums.waitMs += more.waitMs
  sums.holdMs += more.holdMs
  sums.longestHoldMs = Math.max(sums.longestHoldMs, more.longestHoldMs)
}

function roundedSums({ checkouts, waitMs, holdMs, longestHoldMs }: Sums): Sums {
  return {
    checkouts,
    waitMs: rounded(waitMs),
    holdMs: rounded(holdMs),
    longestHoldMs: rounded(longestHoldMs),
  }
}

function rounded(ms: number): number {
  return Math.round(ms * 100) / 100
}
