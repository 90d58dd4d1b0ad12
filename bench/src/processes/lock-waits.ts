import { setTimeout as delay } from 'node:timers/promises'
import type { Stage } from '../support/stage.ts'
import { CLAIM_WORDS } from '../support/statements.ts'
import type { Figures } from '../support/subject.ts'

const LONG_MS = 5
const PAUSE_MS = 3

const WAITING = `
SELECT l.pid, l.waitstart::text AS since, l.locktype AS type, left(a.query, 200) AS query,
       a.query ILIKE ALL ($2::text[]) AS claim,
       extract(epoch FROM clock_timestamp() - l.waitstart)::float8 * 1000 AS ms
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.datname = $1 AND a.wait_event_type = 'Lock'`

const CLAIM = CLAIM_WORDS.map((word) => `%${word}%`)

interface Wait {
  pid: number
  since: string
  type: string
  query: string
  claim: boolean
  ms: number
}

/** Looks every few milliseconds which connections of a database wait for a lock, and since when. */
export class LockWaits {
  readonly #waits = new Map<string, Wait>()
  readonly #watching: Promise<void>
  #ended = false

  constructor(stage: Stage) {
    this.#watching = this.#watch(stage)
    this.#watching.catch(() => {})
  }

  async end(): Promise<{ figures: Figures; long: Wait[] }> {
    this.#ended = true
    await this.#watching
    const waits = [...this.#waits.values()]
    const long = waits.filter(({ ms }) => ms > LONG_MS)
    const figures = {
      longLockWaits: long.length,
      longClaimWaits: long.filter(({ claim }) => claim).length,
      longestLockWaitMs: Math.max(0, ...waits.map(({ ms }) => ms)),
    }
    return { figures, long }
  }

  async #watch(stage: Stage): Promise<void> {
    const client = await stage.connect()
    while (!this.#ended) {
      const { rows } = await client.query<Wait>(WAITING, [stage.database, CLAIM])
      for (const wait of rows) this.#waits.set(`${wait.pid} ${wait.since}`, wait)
      await delay(PAUSE_MS)
    }
    await client.end()
  }
}
