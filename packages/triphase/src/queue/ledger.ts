import type { Ledger, PhaseLedger } from '../telemetry.ts'

type Sums = Omit<PhaseLedger, 'durationMs'>

const NOTHING: Readonly<Sums> = { checkouts: 0, waitMs: 0, holdMs: 0, longestHoldMs: 0 }

interface Hold {
  phase: string | undefined
  since: number
}

/** The connection time of one claim, phase by phase, while it goes on. Most claims have none: it is made when there is some. */
export class ClaimLedger {
  #phases: Map<string, PhaseLedger> | undefined
  #sums: Sums | undefined
  #open: Set<Hold> | undefined
  #phase: { name: string; since: number } | undefined

  get phase(): string | undefined {
    return this.#phase?.name
  }

  get checkouts(): number {
    return this.#sums?.checkouts ?? 0
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
    this.#open ??= new Set()
    const open = this.#open
    open.add(hold)
    this.#add(hold.phase, { ...NOTHING, checkouts: 1, waitMs })
    return () => {
      if (!open.delete(hold)) return
      const holdMs = performance.now() - hold.since
      this.#add(hold.phase, { ...NOTHING, holdMs, longestHoldMs: holdMs })
    }
  }

  /** All of it up to now, what is still going on included. */
  read(): Ledger {
    if (!this.#sums && !this.#phase && !this.#phases) return { ...NOTHING, phases: {} }
    const now = performance.now()
    const sums = { ...(this.#sums ?? NOTHING) }
    const phases = new Map([...(this.#phases ?? [])].map(([name, phase]) => [name, { ...phase }]))
    const phaseOf = (name: string) => {
      const phase = phases.get(name) ?? { durationMs: 0, ...NOTHING }
      phases.set(name, phase)
      return phase
    }
    if (this.#phase) phaseOf(this.#phase.name).durationMs += now - this.#phase.since
    for (const { phase, since } of this.#open ?? []) {
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
    this.#phases ??= new Map()
    const phases = this.#phases
    const known = phases.get(phase)
    if (known) return known
    const fresh = { durationMs: 0, ...NOTHING }
    phases.set(phase, fresh)
    return fresh
  }

  #add(phase: string | undefined, more: Sums): void {
    this.#sums ??= { ...NOTHING }
    add(this.#sums, more)
    if (phase !== undefined) add(this.#of(phase), more)
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
