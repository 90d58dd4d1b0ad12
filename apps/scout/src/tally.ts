import type { Counts } from './progress.ts'

/** A file of which there is no capture, and why. */
export interface Refusal {
  readonly name: string
  readonly message: string
}

/** What a run has found in its folder so far, and how far each capture is. */
export class Tally {
  readonly refused: Refusal[] = []
  /** Set when no more files are looked at. */
  ended = false
  /** Why the run stopped looking at files before the last one. */
  stopped: Error | null = null
  readonly #files: number
  readonly #names = new Map<string, string[]>()
  readonly #open = new Set<string>()
  #named = 0
  #known = 0
  #completed = 0
  #failed = 0

  /** @param files how many files there are to look at. */
  constructor(files: number) {
    this.#files = files
  }

  /** A file is this capture; `known`: it was analysed before. Files with the same content are one capture. */
  add(captureId: string, name: string, known: boolean): void {
    this.#named++
    const names = this.#names.get(captureId)
    if (names) {
      names.push(name)
      return
    }
    this.#names.set(captureId, [name])
    if (!known) {
      this.#open.add(captureId)
      return
    }
    this.#known++
    this.#completed++
  }

  /** The analysis of an open capture has ended. */
  settle(captureId: string, status: 'completed' | 'failed'): void {
    if (!this.#open.delete(captureId)) return
    if (status === 'completed') this.#completed++
    else this.#failed++
  }

  /** Captures whose analysis has not ended. */
  get open(): string[] {
    return [...this.#open]
  }

  get captures(): string[] {
    return [...this.#names.keys()]
  }

  /** What a capture's files are called, in the order in which they were read. */
  namesOf(captureId: string): readonly string[] {
    return this.#names.get(captureId) ?? []
  }

  /** Files that nobody has looked at. */
  get unread(): number {
    return this.#files - this.#named - this.refused.length
  }

  get counts(): Counts {
    const duplicates = this.#named - this.#names.size
    return {
      total: this.#files - duplicates,
      completed: this.#completed,
      failed: this.#failed + this.refused.length,
      known: this.#known,
    }
  }
}
