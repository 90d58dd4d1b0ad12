import pg from 'pg'
import type { RunStatement } from '../store/insert.ts'
import { type ServerDescription, shareServerConnections } from '../store/server.ts'
import type { Telemetry, TelemetryEvents } from '../telemetry.ts'

export interface PoolerParts {
  server: ServerDescription
  telemetry: Telemetry
  /** Single statements, over connections that are open at the same time. */
  engine: RunStatement
  heartbeat: RunStatement
  application: RunStatement
  /** The application's pool has the engine's user and database. */
  sameUrl: boolean
}

const SHARED_POOL =
  'The engine and the application use one pool of the pooler (the same user and database), so a busy application makes ' +
  'claims, heartbeats and acks wait. Give the engine a role or a database alias of its own: engine: { url }. ' +
  'See docs/poolers.md.'

export type Pooling = TelemetryEvents['server:found']['pooler']

/** Says what stands between the engine and its server, and whether that makes the two pools one. */
export async function lookForPooler(parts: PoolerParts): Promise<Pooling> {
  const { telemetry, engine, heartbeat, application, sameUrl } = parts
  const { version, behindPooler } = parts.server
  const pooler = behindPooler ? await poolingOf(engine, heartbeat) : 'none'
  telemetry.emit('server:found', { version, pooler })
  if (!behindPooler) return pooler
  if (sameUrl || (await shareServerConnections(engine, application)))
    telemetry.emit('config:warning', { message: SHARED_POOL })
  return pooler
}

async function poolingOf(engine: RunStatement, heartbeat: RunStatement): Promise<Pooling> {
  return (await shareServerConnections(engine, heartbeat)) ? 'transaction' : 'session'
}

/** Whether two URLs name one pool of a pooler: poolers keep one for each pair of user and database. */
export function sameUserAndDatabase(one: string, other: string): boolean {
  const [a, b] = [new pg.Client(one), new pg.Client(other)]
  return a.host === b.host && a.port === b.port && a.user === b.user && a.database === b.database
}
