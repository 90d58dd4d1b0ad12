import { connectionFailure, isConnectionFailure } from '../store/database.ts'
import type { CheckoutSums, Ledger, PhaseConnections, PhaseLedger, TaskConnections } from '../telemetry.ts'

/** Who asks for a connection of the application. */
export interface Holder {
  jobId: string | null
  task: string | null
  phase: string | null
  /** Says where the transaction was opened. */
  opened: (() => string) | undefined
}

/** A connection that is checked out, and for whom. */
export interface HeldConnection {
  /** For how long, in milliseconds. */
  heldMs: number
  jobId: string | null
  task: string | null
  phase: string | null
  /** The line that opened the transaction, or the task's definition; null where it is not known (the guard is off). */
  opened: string | null
}

const NOTHING: Readonly<PhaseConnections> = {
  claims: 0,
  durationMs: 0,
  checkouts: 0,
  waitMs: 0,
  holdMs: 0,
  longestHoldMs: 0,
}

/** Every checkout that the engine makes on the application's pool: those that are open, and sums of the others. */
export class Holds {
  readonly #held = new Set<{ holder: Holder; since: number }>()
  readonly #sums: CheckoutSums = { checkouts: 0, waitMs: 0, holdMs: 0, longestHoldMs: 0 }
  readonly #tasks = new Map<string, TaskConnections>()
  #waiting = 0

  /**
   * Runs something that asks for a connection.
   *
   * @param run is given the function to call once the connection is there; it holds it until it settles.
   * @param began told how long the connection was waited for; returns what to call when it is given back.
   * @throws {TriphaseError} `CONNECTION_FAILED`, `LOGIN_REFUSED` where there was no connection to be had.
   */
  async during<Value>(
    holder: Holder,
    run: (began: () => void) => Promise<Value>,
    began: (waitMs: number) => () => void = () => () => {},
  ): Promise<Value> {
    const asked = performance.now()
    let end: (() => void) | undefined
    this.#waiting++
    try {
      return await run(() => {
        end ??= this.#begin(holder, performance.now() - asked, began)
      })
    } catch (error) {
      throw end === undefined && isConnectionFailure(error) ? connectionFailure(error) : error
    } finally {
      if (end) end()
      else this.#waiting--
    }
  }

  /** A claim has ended, after so many milliseconds and with this ledger. */
  count(task: string, queue: string, durationMs: number, ledger: Ledger): void {
    const key = JSON.stringify([task, queue])
    const sums: TaskConnections = this.#tasks.get(key) ?? { task, queue, ...NOTHING, phases: {} }
    this.#tasks.set(key, sums)
    add(sums, { durationMs, ...ledger })
    for (const [name, phase] of Object.entries(ledger.phases)) {
      const of = sums.phases[name] ?? { ...NOTHING }
      sums.phases[name] = of
      add(of, phase)
    }
  }

  get sums(): CheckoutSums {
    return { ...this.#sums }
  }

  /** How many are held now, how many are waited for, and the one that is held for longest. */
  get now(): { inUse: number; waiting: number; oldest: HeldConnection | null } {
    const [oldest] = this.#held
    return { inUse: this.#held.size, waiting: this.#waiting, oldest: oldest ? heldBy(oldest) : null }
  }

  get tasks(): TaskConnections[] {
    return [...this.#tasks.values()].map((task) => structuredClone(task))
  }

  #begin(holder: Holder, waitMs: number, began: (waitMs: number) => () => void): () => void {
    const held = { holder, since: performance.now() }
    this.#held.add(held)
    this.#waiting--
    const ended = began(waitMs)
    return () => {
      this.#held.delete(held)
      const holdMs = performance.now() - held.since
      this.#sums.checkouts++
      this.#sums.waitMs += waitMs
      this.#sums.holdMs += holdMs
      this.#sums.longestHoldMs = Math.max(this.#sums.longestHoldMs, holdMs)
      ended()
    }
  }
}

function add(sums: PhaseConnections, claim: PhaseLedger): void {
  sums.claims++
  sums.durationMs += claim.durationMs
  sums.checkouts += claim.checkouts
  sums.waitMs += claim.waitMs
  sums.holdMs += claim.holdMs
  sums.longestHoldMs = Math.max(sums.longestHoldMs, claim.longestHoldMs)
}

function heldBy({ holder, since }: { holder: Holder; since: number }): HeldConnection {
  const { opened, ...who } = holder
  return { heldMs: performance.now() - since, ...who, opened: opened?.() ?? null }
}
