import { PRIORITIES } from '../job.ts'
import type { ClaimReceipt } from '../store/claim.ts'

const FULL_WALK_MS = 30_000
/** Of each priority. */
const MOST_TOPS = 100

interface Top {
  position: number
  /** Transactions from this one on began after the claim looked. */
  horizon: number
}

/**
 * Where each priority of a queue begins to have available jobs, as far as this process knows: claims start there.
 *
 * Under an old snapshot that somebody holds vacuum removes nothing, and a claim from the very start would walk over
 * every entry of every job that was ever claimed since (25 ms after 300,000 jobs, 340 ms after 3,000,000; from a mark
 * 1.8 ms).
 *
 * Positions are drawn in order, but a transaction that drew a low one may commit late. So a position that a claim has
 * reached becomes the mark only when every transaction that was open while the claim looked has ended. A transaction
 * that only reads has no number and holds nothing back. What slips through all the same (a claim that was rolled
 * back, a position drawn just before its transaction got its number) is found by a walk from the start every 30 s.
 *
 * Where a walk finds a job below the mark, positions may have begun again lower down (a failover to a server that was
 * behind, a restored copy), and many more may lie there: the mark is learned anew.
 */
export class Marks {
  #marks: number[] = PRIORITIES.map(() => 0)
  #tops: Top[][] = PRIORITIES.map(() => [])
  #walkAt = 0

  /** Positions to begin after, one a priority; zeros when it is time for a walk from the start. */
  next(now: number = performance.now()): readonly number[] {
    if (now < this.#walkAt) return this.#marks
    this.#walkAt = now + FULL_WALK_MS
    return PRIORITIES.map(() => 0)
  }

  /** Claims start from the beginning until marks are learned again: this may be another database than before. */
  forget(): void {
    for (const priority of this.#marks.keys()) this.#forget(priority)
  }

  #forget(priority: number): void {
    this.#marks[priority] = 0
    this.#tops[priority] = []
  }

  /** Takes note of what a claim has reached. */
  learn(receipt: ClaimReceipt): void {
    for (const [priority, position] of receipt.tops) {
      if ((receipt.bottoms.get(priority) as number) <= (this.#marks[priority] as number))
        this.#forget(priority)
      const tops = this.#tops[priority] as Top[]
      while ((tops[0]?.horizon ?? Number.POSITIVE_INFINITY) <= receipt.oldestOpen) {
        this.#marks[priority] = Math.max(this.#marks[priority] as number, (tops.shift() as Top).position)
      }
      // A transaction that stays open for days keeps all tops from becoming marks: the last one stands for those after it.
      if (tops.length >= MOST_TOPS) tops.pop()
      tops.push({ position, horizon: receipt.horizon })
    }
  }
}
