import type { Ledger, PhaseLedger } from '../telemetry.ts'

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

/** Checkouts of a pool since the engine was made. Times are milliseconds. */
export interface CheckoutSums {
  checkouts: number
  waitMs: number
  holdMs: number
  longestHoldMs: number
}

/** What the claims of one task did with connections in this process, since it started. Times are milliseconds. */
export interface TaskConnections extends CheckoutSums {
  task: string
  queue: string
  /** Claims that have ended. */
  claims: number
  phases: Record<string, PhaseLedger>
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
    } finally {
      if (end) end()
      else this.#waiting--
    }
  }

  /** A claim has ended, with this ledger. */
  count(task: string, queue: string, ledger: Ledger): void {
    const key = JSON.stringify([task, queue])
    const sums = this.#tasks.get(key) ?? {
      task,
      queue,
      claims: 0,
      checkouts: 0,
      waitMs: 0,
      holdMs: 0,
      longestHoldMs: 0,
      phases: {},
    }
    this.#tasks.set(key, sums)
    sums.claims++
    sums.checkouts += ledger.checkouts
    sums.waitMs += ledger.waitMs
    sums.holdMs += ledger.holdMs
    sums.longestHoldMs = Math.max(sums.longestHoldMs, ledger.longestHoldMs)
    for (const [name, phase] of Object.entries(ledger.phases)) {
      const { durationMs, checkouts, waitMs, holdMs } = sums.phases[name] ?? {
        durationMs: 0,
        checkouts: 0,
        waitMs: 0,
        holdMs: 0,
      }
      sums.phases[name] = {
        durationMs: durationMs + phase.durationMs,
        checkouts: checkouts + phase.checkouts,
        waitMs: waitMs + phase.waitMs,
        holdMs: holdMs + phase.holdMs,
      }
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

function heldBy({ holder, since }: { holder: Holder; since: number }): HeldConnection {
  const { opened, ...who } = holder
  return { heldMs: performance.now() - since, ...who, opened: opened?.() ?? null }
}
