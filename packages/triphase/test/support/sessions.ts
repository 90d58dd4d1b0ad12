import { afterEach } from 'vitest'
import { Database } from '../../src/store/database.ts'
import { onEnginePool, type RunStatement } from '../../src/store/insert.ts'
import type { Bench } from './engines.ts'
import { eventually } from './processes.ts'

/** One connection, so that a transaction begun on it stays open between the statements of the store. */
export interface Session {
  readonly database: Database
  readonly run: RunStatement
  readonly pid: number
  begin(): Promise<unknown>
  commit(): Promise<unknown>
  rollback(): Promise<unknown>
}

export interface Sessions {
  open(): Promise<Session>
  /** Proves the wait: resolves once `waiter` waits for a lock that `holder` has. */
  waits(waiter: Session, holder: Session): Promise<void>
}

/** Connections for tests of races, rolled back and closed after each test. Call it after `useEngines`. */
export function useSessions(bench: Bench): Sessions {
  const open: Session[] = []
  afterEach(async () => {
    for (const session of open.splice(0)) {
      await session.rollback()
      await session.database.end()
    }
  })
  return {
    async open() {
      const session = await openSession(bench)
      open.push(session)
      return session
    },
    async waits(waiter, holder) {
      const blocked = `SELECT FROM pg_stat_activity
        WHERE pid = $1 AND wait_event_type = 'Lock' AND $2::int = ANY (pg_blocking_pids(pid))`
      const { database } = bench.schema
      await eventually(async () => (await database.query(blocked, [waiter.pid, holder.pid])).length === 1)
    },
  }
}

async function openSession({ schema }: Bench): Promise<Session> {
  const database = new Database(schema.schema, {
    url: schema.url,
    size: 1,
    applicationName: 'session',
    acquireTimeoutMs: 30_000,
    statementTimeoutMs: 30_000,
  })
  const [backend] = await database.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  return {
    database,
    run: onEnginePool(database),
    pid: backend!.pid,
    begin: () => database.query('BEGIN'),
    commit: () => database.query('COMMIT'),
    rollback: () => database.query('ROLLBACK'),
  }
}
