/**
 * - `cut-before`: both connections are destroyed before the statement reaches the server. It does not run.
 * - `cut-after`: the server's complete reply is awaited and swallowed, then both connections are destroyed. It ran.
 * - `hold-before`: it does not reach the server until `release()`, and then does even if its client has died since,
 *   like a packet that was under way.
 * - `hold-reply`: it ran; its reply, and whatever the server sends after it, waits for `release()`.
 * - `error`: it does not reach the server; the client gets an error and the transaction status that such an error leaves.
 */
export type Fault = 'cut-before' | 'cut-after' | 'hold-before' | 'hold-reply' | 'error'

/** A pattern that the SQL text contains, or a function that decides. */
export type StatementMatch = RegExp | ((sql: string, applicationName: string) => boolean)

export interface FaultOptions {
  /** How many statements the fault is for (1). */
  readonly times?: number
  /** How many statements that match pass by first (0). */
  readonly skip?: number
  /** A cut sends the client a TCP reset (`ECONNRESET`) instead of an orderly end of the stream. */
  readonly reset?: boolean
  /** Of an `error`: its SQLSTATE (`XX000`). */
  readonly sqlstate?: string
  /** Of an `error`. */
  readonly message?: string
}

export interface FaultHandle {
  /**
   * The fault has taken effect for the first time: the connection is cut, the statement is held, the complete reply is
   * held, the error is sent.
   */
  readonly hit: Promise<void>
  /** How often it has taken effect. */
  readonly hits: number
  /** Lets go what matched so far; later matches are held anew. */
  release(): void
  /** No further statement matches. What is held stays held until `release()`. */
  remove(): void
}

export class FaultRule implements FaultHandle {
  readonly fault: Fault
  readonly reset: boolean
  readonly sqlstate: string
  readonly message: string
  readonly hit: Promise<void>
  readonly #match: StatementMatch
  readonly #held = new Set<() => void>()
  #resolveHit: () => void = () => {}
  #hits = 0
  #skip: number
  #times: number

  constructor(match: StatementMatch, fault: Fault, options: FaultOptions) {
    this.fault = fault
    this.reset = options.reset ?? false
    this.sqlstate = options.sqlstate ?? 'XX000'
    this.message = options.message ?? 'fault injected'
    this.#match = match
    this.#skip = options.skip ?? 0
    this.#times = options.times ?? 1
    this.hit = new Promise((resolve) => {
      this.#resolveHit = resolve
    })
  }

  get hits(): number {
    return this.#hits
  }

  /** Whether the fault is for this flight. Several matching statements in one flight count once. */
  take(statements: readonly string[], applicationName: string): boolean {
    if (this.#times <= 0 || !statements.some((sql) => this.#matches(sql, applicationName))) return false
    if (this.#skip > 0) {
      this.#skip -= 1
      return false
    }
    this.#times -= 1
    return true
  }

  #matches(sql: string, applicationName: string): boolean {
    // search() ignores the state that a /g pattern keeps between calls.
    return typeof this.#match === 'function'
      ? this.#match(sql, applicationName)
      : sql.search(this.#match) !== -1
  }

  tookEffect(): void {
    this.#hits += 1
    this.#resolveHit()
  }

  onRelease(resume: () => void): void {
    this.#held.add(resume)
  }

  release(): void {
    const held = [...this.#held]
    this.#held.clear()
    for (const resume of held) resume()
  }

  remove(): void {
    this.#times = 0
  }
}
