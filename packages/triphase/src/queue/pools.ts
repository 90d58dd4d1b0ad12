import type pg from 'pg'
import type { EngineConfig } from '../config.ts'
import { storedError } from '../errors.ts'
import { Database, endPool } from '../store/database.ts'
import type { RunStatement } from '../store/insert.ts'
import { openApplicationPool, pgTransactor, type Transactor } from '../store/transactor.ts'
import type { CheckoutSums, TaskConnections, Telemetry } from '../telemetry.ts'
import { type HeldConnection, Holds } from './holds.ts'

/** Connections at one moment, and what was done with them. Times are milliseconds. */
export interface ConnectionsSnapshot {
  /** The engine's own pool, the connection of heartbeats (and of notifications, unless `directUrl` leads elsewhere) included. */
  engine: PoolState
  /**
   * The application's pool. `size` and `open` are null where the application brought a transactor of its own: then
   * `inUse` and `waiting` count what the engine does with it.
   */
  application: Omit<PoolState, 'size' | 'open'> & {
    size: number | null
    open: number | null
    /** Of the connections that the engine holds for transactions and jobs, the one that is held for longest. */
    oldest: HeldConnection | null
  }
  /** Of the tasks whose jobs use connections, what the claims that have ended did. */
  tasks: TaskConnections[]
}

/** A pool now, and its checkouts since the engine was made. */
export interface PoolState extends CheckoutSums {
  size: number
  open: number
  inUse: number
  waiting: number
}

const STATEMENT_TIMEOUT_MS = 15_000

/** The engine's pool, with a connection apart for heartbeats, and the application's. None opens a connection before it is used. */
export class Pools<Tx> {
  readonly database: Database
  readonly heartbeatDatabase: Database
  readonly transactor: Transactor<Tx>
  readonly holds: Holds = new Holds()
  readonly #config: EngineConfig
  readonly #telemetry: Telemetry
  readonly #application: pg.Pool | undefined
  readonly #engineSums: CheckoutSums = { checkouts: 0, waitMs: 0, holdMs: 0, longestHoldMs: 0 }

  /** @param transactor of the application, where it brings one. */
  constructor(config: EngineConfig, telemetry: Telemetry, transactor: Transactor<Tx> | undefined) {
    this.#config = config
    this.#telemetry = telemetry
    const { engine, heartbeatMs } = config
    this.database = this.#openDatabase(engine.size - 1, engine.acquireTimeoutMs, STATEMENT_TIMEOUT_MS)
    // A beat that takes longer than the pause to the next is better given up: its connection may be dead.
    const beatMs = Math.max(1_000, heartbeatMs)
    this.heartbeatDatabase = this.#openDatabase(1, beatMs, beatMs)
    if (!transactor) this.#application = this.#openApplicationPool()
    this.transactor = transactor ?? (pgTransactor(this.#application as pg.Pool) as unknown as Transactor<Tx>)
  }

  /**
   * The heartbeat's connection, where notifications may share it: where they would go to the same URL. Heartbeats go where
   * claims go: a direct URL that cannot be reached must not make a living process look dead.
   */
  get session(): Database | null {
    const { directUrl, engine } = this.#config
    return directUrl === engine.url ? this.heartbeatDatabase : null
  }

  /** Whether the application's pool is the engine's to size: false where a transactor was given. */
  get ownsApplication(): boolean {
    return this.#application !== undefined
  }

  /** Single statements of the application. */
  get onApplication(): RunStatement {
    const { transactor } = this
    return async (text, values) => {
      const ran = transactor.query
        ? transactor.query(text, values)
        : transactor.transaction((tx) => transactor.execute(tx, text, values))
      return (await ran).rows
    }
  }

  get snapshot(): ConnectionsSnapshot {
    const [shared, heartbeat] = [this.database.connections, this.heartbeatDatabase.connections]
    const pool = this.#application
    const held = this.holds.now
    return {
      engine: {
        size: this.#config.engine.size,
        open: shared.open + heartbeat.open,
        inUse: shared.inUse + heartbeat.inUse,
        waiting: shared.waiting,
        ...this.#engineSums,
      },
      application: {
        size: pool ? this.#config.application.size : null,
        open: pool ? pool.totalCount : null,
        inUse: pool ? pool.totalCount - pool.idleCount : held.inUse,
        waiting: pool ? pool.waitingCount : held.waiting,
        ...this.holds.sums,
        oldest: held.oldest,
      },
      tasks: this.holds.tasks,
    }
  }

  /** Closes what was opened here; resolves once everything that is checked out was given back. */
  async end(): Promise<void> {
    await Promise.all([
      this.database.end(),
      this.heartbeatDatabase.end(),
      this.#application && endPool(this.#application),
    ])
  }

  #openDatabase(size: number, acquireTimeoutMs: number, statementTimeoutMs: number): Database {
    const { engine, schema, name } = this.#config
    const options = {
      url: engine.url,
      size,
      applicationName: `${name}-engine`,
      acquireTimeoutMs,
      statementTimeoutMs,
    }
    const onHeld = (waitMs: number, holdMs: number) => {
      const sums = this.#engineSums
      sums.checkouts++
      sums.waitMs += waitMs
      sums.holdMs += holdMs
      sums.longestHoldMs = Math.max(sums.longestHoldMs, holdMs)
      this.#telemetry.emit('pool:held', { pool: 'engine', waitMs, holdMs, jobId: null })
    }
    return new Database(schema, options, this.#poolError('engine'), onHeld)
  }

  #openApplicationPool(): pg.Pool {
    const { application, name } = this.#config
    return openApplicationPool({
      ...application,
      applicationName: name,
      onError: this.#poolError('application'),
    })
  }

  /** A server that closes idle connections is nothing unusual: the pool opens others. */
  #poolError(pool: string): (error: Error) => void {
    return (error) => this.#telemetry.emit('pool:error', { pool, error: storedError(error) })
  }
}
