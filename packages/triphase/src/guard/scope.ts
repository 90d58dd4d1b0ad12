import { AsyncLocalStorage } from 'node:async_hooks'
import type { Allowed, GuardOptions } from '../config.ts'
import { milliseconds } from '../duration.ts'
import type { TriphaseError } from '../errors.ts'
import { allows } from './allowed.ts'
import { type Offence, type Refusable, refusal } from './offence.ts'
import { Place } from './place.ts'
import type { GuardPolicy } from './policy.ts'
import { type Call, tap } from './taps.ts'

/** What a piece of code runs inside of: the innermost first. */
export type Frame = TransactionScope | Permission

/** Calls that are allowed whatever transaction is open further out. */
export interface Permission {
  readonly allowed: Allowed
  readonly parent: Frame | undefined
}

const frames = new AsyncLocalStorage<Frame | undefined>()

const MOST_OFFENCES = 20

/**
 * One transaction, and what was done inside it. It begins in waiting: until the database has answered BEGIN, nothing
 * is blamed on it, neither its own connection nor what the caller does beside it.
 */
export class TransactionScope {
  readonly parent: Frame | undefined
  readonly policy: GuardPolicy
  readonly allowed: Allowed
  readonly maxHoldMs: number | null
  /** Says where it was opened. */
  opened: (() => string) | undefined
  /** Of a staged job. */
  jobId: string | null = null
  /** It was rolled back for an offence. */
  refused = false
  /** The pool or the library that the connection is from, as far as they are known. */
  readonly #sources: unknown[]
  readonly #offences: Offence[] = []
  readonly #sockets: Offence[] = []
  #state: 'waiting' | 'open' | 'closed' = 'waiting'
  #openedAt = 0
  #heldTooLong = false
  #begun = false
  /** A request was made, allowed or not: it explains every socket. */
  #requested = false
  #timer: NodeJS.Timeout | undefined

  constructor(
    policy: GuardPolicy,
    source: unknown,
    { allow = [], maxHold }: Omit<GuardOptions, 'mode'> = {},
  ) {
    this.policy = policy
    this.allowed = allow
    if (maxHold === undefined) this.maxHoldMs = policy.maxHoldMs
    else this.maxHoldMs = maxHold === false ? null : milliseconds(maxHold)
    this.#sources = [source]
    // Not one that is waiting: its opener goes on to open others before the database has answered.
    this.parent = frameAround(frames.getStore(), (scope) => scope.isOpen)
  }

  get isOpen(): boolean {
    return this.#state === 'open'
  }

  get isLive(): boolean {
    return this.#state !== 'closed'
  }

  /** Somebody opens a transaction by way of `source`. Returns whether it is this one, which is just being opened. */
  isOpenedBy(source: unknown): boolean {
    if (this.#state !== 'waiting') return false
    this.#sources.push(source)
    return true
  }

  /** A client of `pool` begins a transaction. Returns whether it is this one. */
  beginsOn(pool: unknown): boolean {
    if (this.#begun || !this.isOpenedBy(pool)) return false
    this.#begun = true
    return true
  }

  holds(source: unknown): boolean {
    return this.#sources.includes(source)
  }

  open(): void {
    if (this.#state !== 'waiting') return
    this.#state = 'open'
    this.#openedAt = performance.now()
    if (this.maxHoldMs === null) return
    this.#timer = setTimeout(() => {
      this.#checkHold()
      this.#report()
    }, this.maxHoldMs)
    this.#timer.unref()
  }

  add(offence: Offence): void {
    const isSocket = offence.kind === 'call' && offence.call.kind === 'socket'
    if (offence.kind === 'call' && offence.call.kind === 'request') this.#requested = true
    // Whether a socket is allowed is seen at the end: at first nobody knows where it goes.
    if (!isSocket && this.#allows(offence)) return
    const list = isSocket ? this.#sockets : this.#offences
    if (list.length < MOST_OFFENCES) list.push(offence)
  }

  /**
   * Why the transaction must not commit; undefined when it may. To be asked when its work is done. Time alone is no
   * reason: it may be the database's doing, and a rollback would only have the work done twice.
   */
  refusal(): TriphaseError | undefined {
    this.#checkHold()
    if (this.policy.mode !== 'error' || this.#isBlameless) return undefined
    const first = this.#standing().find(isRefusable)
    this.refused = first !== undefined
    return first && refusal(first, this.openedAt)
  }

  /** The transaction has ended, one way or the other: what carries the scope on is free again. */
  close(): void {
    if (this.#state === 'closed') return
    clearTimeout(this.#timer)
    if (this.#state === 'open') this.#report()
    this.#state = 'closed'
    // A context that lives long, such as a socket's, keeps the scope that it came from.
    if (!this.#isBlameless) {
      this.#offences.length = 0
      this.#sockets.length = 0
    }
    this.opened = undefined
  }

  /** Where it was opened, as a message says it. */
  get openedAt(): string {
    return this.opened?.() ?? 'somewhere'
  }

  #checkHold(): void {
    const limitMs = this.maxHoldMs
    if (limitMs === null || this.#heldTooLong || this.#state !== 'open') return
    // A timer may fire a fraction of a millisecond early.
    if (performance.now() - this.#openedAt < limitMs - 1) return
    this.#heldTooLong = true
    this.#offences.push({ kind: 'hold', limitMs })
  }

  /** What nothing explains and nobody allowed; what was done comes before the time that it took. */
  #standing(): Offence[] {
    const sockets = this.#requested ? [] : this.#sockets.filter((socket) => !this.#allows(socket))
    const [held, done] = [this.#offences.filter(isHold), this.#offences.filter((each) => !isHold(each))]
    return [...done, ...sockets, ...held]
  }

  #allows(offence: Offence): boolean {
    const all = [this.policy.allowed, this.allowed]
    if (offence.kind === 'call') return all.some((allowed) => allows(allowed, offence.call))
    return offence.kind === 'checkout' && all.includes(true)
  }

  get #isBlameless(): boolean {
    return this.#offences.length + this.#sockets.length === 0
  }

  #report(): void {
    if (this.#isBlameless) return
    for (const offence of this.#standing()) this.policy.report(offence, this)
  }
}

function isRefusable(offence: Offence): offence is Refusable {
  return !isHold(offence)
}

function isHold(offence: Offence): boolean {
  return offence.kind === 'hold'
}

/** Runs `work` inside the scope. */
export function runInside<Value>(scope: Frame, work: () => Value): Value {
  return frames.getStore() === scope ? work() : frames.run(scope, work)
}

/** From here on the caller runs inside the scope, and what it awaits and begins. */
export function enter(scope: TransactionScope): void {
  frames.enterWith(scope)
}

/** Runs `work` outside of every transaction. */
export function outside<Value>(work: () => Value): Value {
  return frames.run(undefined, work)
}

/** Runs `work` where these calls are allowed. */
export function runAllowing<Value>(allowed: Allowed, work: () => Value): Value {
  return frames.run({ allowed, parent: frameAround(frames.getStore(), (scope) => scope.isLive) }, work)
}

/** The innermost transaction that has not ended. */
export function innermostScope(): TransactionScope | undefined {
  for (let frame = frames.getStore(); frame; frame = frame.parent) {
    if (frame instanceof TransactionScope && frame.isLive) return frame
  }
  return undefined
}

/** Somebody asks `source` for a connection here. */
export function noteCheckout(source: unknown): void {
  let place: Place | undefined
  for (let frame = frames.getStore(); frame; frame = frame.parent) {
    if (!(frame instanceof TransactionScope)) {
      if (frame.allowed === true) return
    } else if (frame.isOpen && frame.holds(source)) {
      place ??= new Place(noteCheckout)
      frame.add({ kind: 'checkout', place })
    }
  }
}

/** Says where the transaction was opened that the caller runs inside, unless somebody has said so. */
export function nameTransaction(opened: () => string, jobId: string): void {
  const scope = innermostScope()
  if (!scope || scope.opened) return
  scope.opened = opened
  scope.jobId = jobId
}

/** Begins to listen to what leaves the process. */
export function watchCalls(): void {
  tap(isInTransaction, noteCall)
}

function isInTransaction(): boolean {
  return frameAround(frames.getStore(), (scope) => scope.isOpen) !== undefined
}

/** A call inside a transaction keeps the ones around it open as well. */
function noteCall(call: Call): void {
  for (let frame = frames.getStore(); frame; frame = frame.parent) {
    if (!(frame instanceof TransactionScope)) {
      // Where certain hosts are allowed, so are the sockets that lead there.
      if (allows(frame.allowed, call) || call.kind === 'socket') return
    } else if (frame.isOpen) frame.add({ kind: 'call', call })
  }
}

/** Without the scopes that have ended, so that a context that lives for ever does not keep all that it ever ran. */
function frameAround(
  innermost: Frame | undefined,
  counts: (scope: TransactionScope) => boolean,
): Frame | undefined {
  let frame = innermost
  while (frame instanceof TransactionScope && !counts(frame)) frame = frame.parent
  return frame
}
