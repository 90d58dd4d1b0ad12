import { expect } from 'vitest'
import type { Job, JobState } from '../../src/index.ts'
import { eventually } from './processes.ts'

interface FindsJobs {
  job(id: string): Promise<Job | null>
}

/** The job, once it is in the state that is expected. */
export function jobIn(engine: FindsJobs, id: string, state: JobState): Promise<Job> {
  return eventually(async () => {
    const job = await engine.job(id)
    expect(job?.state).toBe(state)
    return job!
  })
}

/** A promise that a test resolves when it wants a handler to go on, and news that the handler is there. */
export class Gate {
  readonly #opened = Promise.withResolvers<void>()
  readonly #reached = Promise.withResolvers<void>()

  readonly reached: Promise<void> = this.#reached.promise

  open(): void {
    this.#opened.resolve()
  }

  /** For the handler. */
  async pass(): Promise<void> {
    this.#reached.resolve()
    await this.#opened.promise
  }
}
