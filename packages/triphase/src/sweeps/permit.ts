import type { BeatAnswer } from '../store/sweep-page.ts'

/**
 * Begin no call this long after the last word from the database: less than it takes to be taken for dead (12 s unless
 * configured), since then the slots are somebody else's.
 */
const LEASE_MS = 3_000

/** What a page tells of its calls with a beat. */
export interface CallNews {
  ok: number
  failed: number
  trailing: number
  /** Calls begun so far, and what they have spent. */
  begun: number
  spent: number
}

/** What a page may do, as its last beat said, and what it has to say with the next. */
export class Permit {
  #answer: BeatAnswer | undefined
  #leaseUntil = 0
  #slowUntil = 0
  #askedUntil = 0
  #asking: number | undefined
  /** When the last call began, or might have; undefined: it had no slots yet. */
  #pacedFrom: number | undefined
  #callsLeft = Number.POSITIVE_INFINITY
  #spendLeft = Number.POSITIVE_INFINITY
  #newsSince = false
  #news: CallNews = { ok: 0, failed: 0, trailing: 0, begun: 0, spent: 0 }

  get state(): BeatAnswer['state'] {
    return this.#answer?.state ?? 'running'
  }

  get stopping(): boolean {
    return this.#answer?.stopping ?? false
  }

  get slots(): number {
    return this.#answer?.slots ?? 0
  }

  /** Calls that may be under way now: while it is asked for more, no more than it was said to be. */
  get limit(): number {
    return Math.min(this.slots, this.#asking ?? Number.POSITIVE_INFINITY)
  }

  /** A beat that says that so many calls are under way is sent; until one is answered, this is all that is sure. */
  ask(busy: number): void {
    this.#asking = busy
  }

  /** Whether calls may be begun at all. */
  get open(): boolean {
    return this.state === 'running' && !this.stopping && performance.now() < this.#leaseUntil
  }

  /** Whether a call may be begun now. */
  take(mostInRow: number): boolean {
    const now = performance.now()
    if (!this.open || now < this.#slowUntil || now < this.#paceAt) return false
    // What is left of a budget is being asked about, and may be another's by now.
    if (this.#asking !== undefined && Number.isFinite(this.#callsLeft)) return false
    return this.#callsLeft > 0 && this.#spendLeft > 0 && this.#news.trailing < mostInRow
  }

  /** How long no call may begin, for an API's sake. */
  get slowMs(): number {
    return Math.max(0, this.#slowUntil - performance.now())
  }

  began(): void {
    this.#callsLeft--
    this.#news.begun++
    this.#pacedFrom = performance.now()
  }

  /** What was counted as begun turned out to have nothing to call. */
  neverBegan(): void {
    this.#callsLeft++
    this.#news.begun--
  }

  /** When the rate allows the next call. The first waits as long, or a rate would be nothing where pages are short. */
  get #paceAt(): number {
    const rate = this.#answer?.rate
    return rate ? (this.#pacedFrom ?? 0) + 1_000 / rate : 0
  }

  /** When a wait that only time ends is over. */
  nextAt(now: number): number {
    const waits = [this.#slowUntil, this.#paceAt].filter((at) => at > now)
    return waits.length > 0 ? Math.max(...waits) : Number.POSITIVE_INFINITY
  }

  spend(amount: number): void {
    this.#newsSince = true
    this.#news.spent += amount
    this.#spendLeft -= amount
  }

  count(ok: boolean): void {
    this.#newsSince = true
    this.#news[ok ? 'ok' : 'failed']++
    this.#news.trailing = ok ? 0 : this.#news.trailing + 1
  }

  /** No call begins before that time, here at once and elsewhere with the next beats. */
  slowDown(delayMs: number): void {
    this.#askedUntil = Math.max(this.#askedUntil, performance.now() + delayMs)
    this.#slowUntil = Math.max(this.#slowUntil, this.#askedUntil)
  }

  /** What an API asked of this page itself: told with each beat until it is over. */
  get askedMs(): number {
    return Math.max(0, this.#askedUntil - performance.now())
  }

  /** Calls have ended that the database does not know of. */
  get hasNews(): boolean {
    return this.#newsSince
  }

  /** The breaker or a budget, which count over all processes, have to be asked before another call. */
  mustAsk(mostInRow: number): boolean {
    const usedUp = this.#callsLeft <= 0 || this.#spendLeft <= 0 || this.#news.trailing >= mostInRow
    return usedUp && this.#newsSince
  }

  news(): CallNews {
    return { ...this.#news }
  }

  /** @param told what the beat has said; it is not said again. */
  learn(answer: BeatAnswer, sentAt: number, told: CallNews): void {
    this.#answer = answer
    if (answer.slots > 0) this.#pacedFrom ??= performance.now()
    this.#asking = undefined
    this.#leaseUntil = sentAt + LEASE_MS
    this.#callsLeft = (answer.callsLeft ?? Number.POSITIVE_INFINITY) - (this.#news.begun - told.begun)
    if (answer.slowMs > 0) this.#slowUntil = Math.max(this.#slowUntil, performance.now() + answer.slowMs)
    this.#spendLeft = (answer.spendLeft ?? Number.POSITIVE_INFINITY) - (this.#news.spent - told.spent)
    const { ok, failed, trailing, begun, spent } = this.#news
    this.#newsSince = ok > told.ok || failed > told.failed
    this.#news = {
      ok: ok - told.ok,
      failed: failed - told.failed,
      // A success since then has begun the row anew.
      trailing: ok > told.ok ? trailing : trailing - told.trailing,
      begun,
      spent,
    }
  }
}
