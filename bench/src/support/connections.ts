import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { OWN_CONNECTIONS } from './database.ts'

/** Most connections that were open at a time. */
export interface ConnectionPeaks {
  all: number
  /** Those in a transaction or running a statement. */
  busy: number
  /** Age of the oldest transaction that was seen, in milliseconds. */
  transactionMs: number
  byApplication: Record<string, number>
}

const PAUSE_MS = 15

const LOOK = `
SELECT application_name AS application, count(*)::int AS open,
       count(*) FILTER (WHERE state IS DISTINCT FROM 'idle')::int AS busy,
       coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 * 1000 AS "transactionMs"
FROM pg_stat_activity
WHERE datname = $1 AND application_name <> $2 AND backend_type = 'client backend' GROUP BY 1`

interface Look {
  application: string
  open: number
  busy: number
  transactionMs: number
}

/** Looks at a database's connections every few milliseconds, from a connection to another one. */
export class ConnectionWatch {
  readonly #client: pg.Pool
  readonly #database: string
  readonly #peaks: ConnectionPeaks = { all: 0, busy: 0, transactionMs: 0, byApplication: {} }
  readonly #watching: Promise<void>
  #ended = false

  constructor(client: pg.Pool, database: string) {
    this.#client = client
    this.#database = database
    this.#watching = this.#watch()
    // Heard by whoever ends the watch; nobody does when what it watches has failed.
    this.#watching.catch(() => {})
  }

  async end(): Promise<ConnectionPeaks> {
    this.#ended = true
    await this.#watching
    return this.#peaks
  }

  async #watch(): Promise<void> {
    while (!this.#ended) {
      const { rows } = await this.#client.query<Look>(LOOK, [this.#database, OWN_CONNECTIONS])
      this.#note(rows)
      await delay(PAUSE_MS)
    }
  }

  #note(looks: readonly Look[]): void {
    const peaks = this.#peaks
    peaks.all = Math.max(peaks.all, sum(looks.map(({ open }) => open)))
    peaks.busy = Math.max(peaks.busy, sum(looks.map(({ busy }) => busy)))
    for (const { application, open, transactionMs } of looks) {
      peaks.transactionMs = Math.max(peaks.transactionMs, transactionMs)
      peaks.byApplication[application] = Math.max(peaks.byApplication[application] ?? 0, open)
    }
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
