import type { Figures } from './subject.ts'

const SLICE_MS = 50

/** How many jobs ran when: the rate at the beginning and at the end. */
export class Windows {
  readonly #began = performance.now()
  readonly #slices: number[] = []

  count(): void {
    const slice = Math.floor((performance.now() - this.#began) / SLICE_MS)
    this.#slices[slice] = (this.#slices[slice] ?? 0) + 1
  }

  /** Jobs a second in the first, the last and the slowest window, and the last by the first. */
  figures(windowSeconds: number): Figures {
    const slices = Array.from(this.#slices, (count) => count ?? 0)
    const first = slices.findIndex((count) => count > 0)
    const length = (windowSeconds * 1_000) / SLICE_MS
    const rate = (counts: readonly number[]) =>
      (counts.reduce((sum, count) => sum + count, 0) * 1_000) / (SLICE_MS * Math.max(1, counts.length))
    const firstWindow = rate(slices.slice(first, first + length))
    // The last slice is not whole.
    const whole = slices.slice(first, -1)
    const lastWindow = rate(whole.slice(-length))
    const starts = Array.from({ length: Math.max(1, whole.length - length + 1) }, (_, start) => start)
    const slowestWindow = Math.min(...starts.map((start) => rate(whole.slice(start, start + length))))
    return { firstWindow, lastWindow, slowestWindow, lastByFirst: lastWindow / firstWindow }
  }
}
