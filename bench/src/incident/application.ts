import pg from 'pg'
import type { Conversation } from '../support/conversation.ts'
import { quantile } from '../support/spread.ts'
import { type Figures, timed } from '../support/subject.ts'
import { type IncidentOrder, jobsOf } from './load.ts'

// The application, the same whichever way its jobs are written: captures, an analysis of each, and a dashboard.

export const APPLICATION_TABLES = `
CREATE TABLE capture (
  id integer PRIMARY KEY,
  camera text NOT NULL DEFAULT 'front door'
);
CREATE TABLE analysis (
  capture_id integer PRIMARY KEY REFERENCES capture,
  status text NOT NULL DEFAULT 'processing',
  observations json,
  completions integer NOT NULL DEFAULT 0
)`

export const FILL_CAPTURES = 'INSERT INTO capture (id) SELECT generate_series(0, $1::int - 1)'

export const LOCK_CAPTURE = 'SELECT camera FROM capture WHERE id = $1 FOR UPDATE'

/** Finds or creates. */
export const BEGIN_ANALYSIS = `
INSERT INTO analysis (capture_id) VALUES ($1)
ON CONFLICT (capture_id) DO UPDATE SET status = analysis.status RETURNING status`

export const COMPLETE_ANALYSIS = `
UPDATE analysis SET status = 'completed', observations = $2, completions = completions + 1 WHERE capture_id = $1`

const DASHBOARD = 'SELECT status, count(*) AS analyses FROM analysis GROUP BY status'

/** What the model says of a capture. */
export interface Observations {
  labels: string[]
}

export async function askModel(api: string, n: number, signal?: AbortSignal): Promise<Observations> {
  const response = await fetch(`${api}/${n}`, { method: 'POST', ...(signal ? { signal } : {}) })
  return (await response.json()) as Observations
}

const POOL_SIZE = 10
/** At full length; a short run asks less often than that, so that asking is not what it measures. */
const DASHBOARD_PAUSE_MS = 100
const LEAST_PAUSE_MS = 10

/** What a program tells besides figures. */
export interface Ending {
  /** Numbers of the jobs that failed for good. */
  failed: readonly number[]
  /** Attempts that failed, by the error's message. */
  errors: Record<string, number>
}

/** One process of the application: its pool, its dashboard, and what becomes of its jobs. */
export class Application {
  readonly pool: pg.Pool
  readonly outcomes: Outcomes
  readonly #checkouts: Checkouts
  readonly #dashboardPauseMs: number

  constructor({ url, load }: IncidentOrder) {
    this.pool = new pg.Pool({
      connectionString: url,
      application_name: 'application',
      max: POOL_SIZE,
      connectionTimeoutMillis: load.acquireTimeoutMs / load.factor,
    })
    this.pool.on('error', () => {})
    this.#checkouts = new Checkouts(this.pool)
    this.outcomes = new Outcomes(jobsOf(load).length)
    this.#dashboardPauseMs = Math.max(LEAST_PAUSE_MS, DASHBOARD_PAUSE_MS / load.factor)
  }

  /**
   * Measures from the start of the jobs to the end of the last one, beside the dashboard.
   *
   * @param start starts the jobs.
   * @param failed afterwards, the numbers of those that failed.
   */
  async measure(
    parent: Conversation,
    start: () => unknown,
    failed: () => Promise<readonly number[]>,
  ): Promise<void> {
    await this.#connect()
    await timed(parent, async () => {
      const began = performance.now()
      const dashboard = new Dashboard(this.pool, this.#dashboardPauseMs)
      await start()
      await this.outcomes.all
      const seconds = (performance.now() - began) / 1_000
      await dashboard.close()
      const { errors } = this.outcomes
      parent.tell('ending', { failed: await failed(), errors } satisfies Ending)
      const figures = {
        ...this.outcomes.figures(),
        ...this.#checkouts.figures(this.outcomes.done),
        ...dashboard.figures(),
      }
      return { seconds, figures }
    })
  }

  close(): Promise<void> {
    return this.pool.end()
  }

  /** The pool of a process that has been running for a while: all of it is open. */
  async #connect(): Promise<void> {
    await Promise.allSettled(Array.from({ length: POOL_SIZE }, () => this.pool.query('SELECT 1')))
  }
}

/** How long jobs wait for connections of a pool, and how long they hold them. */
class Checkouts {
  readonly #waitsMs: number[] = []
  #holdMs = 0
  #longestHoldMs = 0

  /** Takes the place of the pool's `connect`. The dashboard's `query` gives that a callback, and is not counted. */
  constructor(pool: pg.Pool) {
    type Connect = (callback?: unknown) => Promise<pg.PoolClient>
    const connect = pool.connect.bind(pool) as unknown as Connect
    const counted: Connect = (callback) => (callback ? connect(callback) : this.#checkOut(connect))
    pool.connect = counted as typeof pool.connect
  }

  figures(jobsDone: number): Figures {
    return {
      waitP50: quantile(this.#waitsMs, 0.5),
      waitP99: quantile(this.#waitsMs, 0.99),
      waitMax: Math.max(...this.#waitsMs),
      holdMean: this.#holdMs / jobsDone,
      holdMax: this.#longestHoldMs,
    }
  }

  async #checkOut(connect: () => Promise<pg.PoolClient>): Promise<pg.PoolClient> {
    const asked = performance.now()
    const client = await connect().finally(() => this.#waitsMs.push(performance.now() - asked))
    const since = performance.now()
    // The pool makes a new one at each checkout.
    const { release } = client
    client.release = (broken) => {
      const holdMs = performance.now() - since
      this.#holdMs += holdMs
      this.#longestHoldMs = Math.max(this.#longestHoldMs, holdMs)
      release(broken)
    }
    return client
  }
}

/** Asks again and again what a dashboard asks, whether or not it has been answered: so do people. */
class Dashboard {
  readonly #pool: pg.Pool
  readonly #timer: NodeJS.Timeout
  readonly #asked: Promise<void>[] = []
  readonly #latenciesMs: number[] = []
  #failed = 0

  constructor(pool: pg.Pool, pauseMs: number) {
    this.#pool = pool
    this.#timer = setInterval(() => this.#asked.push(this.#ask()), pauseMs)
  }

  /** Resolves when the last answer has come. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#asked)
  }

  figures(): Figures {
    return {
      dashboardP50: quantile(this.#latenciesMs, 0.5),
      dashboardP99: quantile(this.#latenciesMs, 0.99),
      dashboardFailed: (this.#failed * 100) / this.#asked.length,
    }
  }

  async #ask(): Promise<void> {
    const asked = performance.now()
    try {
      await this.#pool.query(DASHBOARD)
    } catch {
      this.#failed++
    }
    this.#latenciesMs.push(performance.now() - asked)
  }
}

const NO_CONNECTION = /timeout exceeded when trying to connect|connection timeout/

/** What has become of jobs and of attempts. */
class Outcomes {
  done = 0
  readonly errors: Record<string, number> = {}
  readonly #jobs: number
  readonly #all = Promise.withResolvers<void>()
  #failed = 0

  constructor(jobs: number) {
    this.#jobs = jobs
  }

  /** Resolves when every job is done or has failed. */
  get all(): Promise<void> {
    return this.#all.promise
  }

  jobDone(): void {
    this.done++
    this.#settled()
  }

  jobFailed(): void {
    this.#failed++
    this.#settled()
  }

  attemptFailed(message: string): void {
    this.errors[message] = (this.errors[message] ?? 0) + 1
  }

  figures(): Figures {
    let [connectionErrors, otherErrors] = [0, 0]
    for (const [message, count] of Object.entries(this.errors)) {
      if (NO_CONNECTION.test(message)) connectionErrors += count
      else otherErrors += count
    }
    return { done: this.done, failed: this.#failed, connectionErrors, otherErrors }
  }

  #settled(): void {
    if (this.done + this.#failed === this.#jobs) this.#all.resolve()
  }
}
