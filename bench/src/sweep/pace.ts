import type { Figures } from '../support/subject.ts'

const SLICES = 1_000

/** How long records took at the beginning and at the end, in slices of a thousandth of them. */
export class Pace {
  readonly #perSlice: number
  readonly #ends: number[] = []
  #count = 0

  constructor(records: number) {
    this.#perSlice = Math.max(1, Math.floor(records / SLICES))
  }

  count(): void {
    if (++this.#count % this.#perSlice === 0) this.#ends.push(performance.now())
  }

  /** The median slice from 95 % to 99 % over that from 1 % to 5 %. */
  figures(): Figures {
    return { lateByEarly: this.#medianMs(0.95, 0.99) / this.#medianMs(0.01, 0.05) }
  }

  #medianMs(from: number, to: number): number {
    const { length } = this.#ends
    const ends = this.#ends.slice(Math.floor(from * length), Math.floor(to * length))
    const times = ends.slice(1).map((end, index) => end - (ends[index] as number))
    return times.sort((a, b) => a - b)[times.length >> 1] ?? Number.NaN
  }
}
