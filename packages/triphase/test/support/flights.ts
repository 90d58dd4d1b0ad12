import type { FaultRule } from './fault-rules.ts'
import { type Frame, readBind, readParse, readQuery } from './pg-wire.ts'

/** What a client sends up to one ReadyForQuery of the server: a Query, or extended messages up to Sync. */
export interface Flight {
  rule: FaultRule | undefined
  replyHeld: boolean
}

/**
 * A part of a flight that may not wait for the rest of it. Only a cursor's Flush makes a flight several units; copy data,
 * passwords and Terminate are units too.
 */
export interface Unit {
  readonly flight: Flight
  readonly statements: readonly string[]
  /** The server says ReadyForQuery when it has done this unit. */
  readonly last: boolean
  bytes: Buffer
  held: boolean
}

const gathered = new Set(['P', 'B', 'D', 'E', 'C'])
const endsFlight = new Set(['Q', 'S', 'F'])

/** Gathers a client's messages into units, and knows which SQL each of them runs. */
export class FlightReader {
  readonly #prepared = new Map<string, string>()
  #flight: Flight = newFlight()
  #frames: Buffer[] = []
  #statements: string[] = []

  add(frame: Frame): Unit | undefined {
    this.#frames.push(frame.bytes)
    this.#readStatement(frame)
    if (gathered.has(frame.type)) return undefined
    const unit = {
      flight: this.#flight,
      statements: this.#statements,
      last: endsFlight.has(frame.type),
      bytes: this.#frames.length === 1 ? frame.bytes : Buffer.concat(this.#frames),
      held: false,
    }
    this.#frames = []
    this.#statements = []
    if (unit.last) this.#flight = newFlight()
    return unit
  }

  /** A Parse alone runs nothing, and a Bind runs what an earlier flight may have parsed: so a statement is its Bind. */
  #readStatement(frame: Frame): void {
    if (frame.type === 'Q') this.#statements.push(readQuery(frame))
    if (frame.type === 'B') this.#statements.push(this.#prepared.get(readBind(frame)) ?? '')
    if (frame.type !== 'P') return
    const { name, sql } = readParse(frame)
    this.#prepared.set(name, sql)
  }
}

export function newFlight(): Flight {
  return { rule: undefined, replyHeld: false }
}
