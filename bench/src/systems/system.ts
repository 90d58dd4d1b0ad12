/** Job systems that are compared, by the name of the module in this folder. */
export type SystemName = 'triphase' | 'floor' | 'graphile-worker' | 'pg-boss' | 'bullmq'

/** What every system can be told; the rest are its own options. Travels to another process, so plain data only. */
export interface Settings {
  /** Name of the task, 'no-op' unless set. */
  task?: string
}

/**
 * A job system, as benchmarks use it: jobs are numbered 0, 1, 2, … and carry their number as `{ n }`.
 *
 * A module of this folder exports one as `system`. It is loaded in the process that is measured, and there alone with
 * the system's own packages.
 */
export interface System {
  /** Makes its tables in an empty database. */
  install(url: string, settings: Settings): Promise<void>
  open(url: string, settings: Settings): Promise<OpenSystem>
  /** What it still has to do, and what it keeps of what is done. */
  count(url: string): Promise<Counts>
}

export interface OpenSystem {
  enqueue(n: number): Promise<unknown>
  /** In one call. */
  enqueueMany(from: number, length: number): Promise<unknown>
  /** A transaction of the application: a row of its own and the job, both or none. */
  enqueueWithRow?(n: number): Promise<unknown>
  /** Begins to run jobs, and calls `acked` for each whose completion is written, as far as the system tells. */
  work(run: (n: number) => unknown, acked?: () => void): Promise<void>
  /** Resolves when so many jobs are done, and their completion is as durable as the system makes it. */
  done(jobs: number): Promise<void>
  /** Lets running jobs finish and closes every connection. */
  close(): Promise<void>
}

export interface Counts {
  live: number
  /** Null: nothing is kept. */
  done: number | null
  /** Different numbers among those that are live or done; null where it cannot be told. */
  different: number | null
}

export async function loadSystem(name: SystemName): Promise<System> {
  const { system } = (await import(`./${name}.ts`)) as { system: System }
  return system
}

/** The row that the application writes with a job. */
export const APPLICATION_TABLE = 'CREATE TABLE IF NOT EXISTS purchase (n integer PRIMARY KEY, note text)'
export const APPLICATION_INSERT = `INSERT INTO purchase (n, note) VALUES ($1, 'bought')`

/** Counts up to a number and says when it is reached. */
export class Tally {
  #count = 0
  readonly #goals: { count: number; resolve: () => void }[] = []

  add(count = 1): void {
    this.#count += count
    for (const goal of this.#goals) if (this.#count >= goal.count) goal.resolve()
  }

  reaches(count: number): Promise<void> {
    if (this.#count >= count) return Promise.resolve()
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#goals.push({ count, resolve })
    return promise
  }
}
