import pg from 'pg'
import { adviseConnections, type ConnectionAdvice, type ObservedTask, observedLoad } from '../adviser.ts'
import type { EngineConfig } from '../config.ts'
import type { Database } from '../store/database.ts'
import { recentLedgers } from '../store/ledger.ts'
import { type ConnectionLimit, connectionLimits } from '../store/server.ts'
import type { Telemetry } from '../telemetry.ts'

/** What the connections of one engine are. */
export interface ConnectionUse {
  config: EngineConfig
  database: Database
  /** The application's pool is the engine's, which knows its size. */
  ownsApplication: boolean
  /** It has a connection that only listens, beside its pools. */
  listens: boolean
}

/** One kind of connection of a process: where it goes, and how many there may be. */
interface Connections {
  user: string
  database: string
  size: number
}

/**
 * Says once what cannot work: more connections than the server, a role or a database lets in, times the processes
 * that there are now; and queues whose jobs would wait for the application's pool in vain. Two statements.
 *
 * @param reachesServer false behind a pooler in transaction mode: the pools' sizes say nothing of the server then.
 */
export async function checkConnections(
  use: ConnectionUse,
  telemetry: Telemetry,
  reachesServer: boolean,
): Promise<void> {
  const warnings = [
    ...(reachesServer ? await overLimits(use) : []),
    ...waitsForItself(use),
    ...waitsInVain(use, await recentLedgers(use.database)),
  ]
  for (const message of warnings) telemetry.emit('config:warning', { message })
}

/** The adviser's judgement of what the engine's processes do, have and may have; null where nothing was observed. */
export async function adviseOf(
  use: ConnectionUse,
  tasks: readonly ObservedTask[],
  reachesServer: boolean,
): Promise<ConnectionAdvice | null> {
  const { config } = use
  const load = observedLoad(tasks, concurrencyOf(config))
  if (!load) return null
  const found = await limitsOf(use)
  const server = found.limits.find((limit) => limit.of === 'max_connections')
  const listeners = use.listens ? found.processes : 0
  return adviseConnections(
    { ...load, processes: Math.max(1, found.processes) },
    {
      ...poolsOf(use),
      ...(server && reachesServer
        ? { maxConnections: server.allows, otherConnections: server.others + listeners }
        : {}),
    },
  )
}

async function overLimits(use: ConnectionUse): Promise<string[]> {
  const own = connectionsOf(use)
  const { processes, limits } = await limitsOf(use)
  return limits.flatMap((limit) => {
    const counted = own.filter(({ user, database }) =>
      limit.of === 'max_connections' ? true : limit.name === (limit.of === 'role' ? user : database),
    )
    const each = counted.reduce((sum, { size }) => sum + size, 0)
    const asked = Math.max(1, processes) * each
    return each > 0 && asked + limit.others > limit.allows ? [overLimit(use, limit, each, processes)] : []
  })
}

function overLimit(
  { config }: ConnectionUse,
  { of, name, allows, others }: ConnectionLimit,
  each: number,
  processes: number,
): string {
  const who =
    processes > 1
      ? `The ${processes} processes named ${config.name} may open ${processes * each} connections (${each} each)`
      : `This process may open ${each} connections`
  const [what, raise] = {
    max_connections: ['max_connections leaves for ordinary roles', 'raise max_connections'],
    role: [`role ${name} may have`, `raise its limit (ALTER ROLE ${name} CONNECTION LIMIT …)`],
    database: [`database ${name} may have`, `raise its limit (ALTER DATABASE ${name} CONNECTION LIMIT …)`],
  }[of] as [string, string]
  return (
    `${who}, and others have ${others} open: more than the ${allows} that ${what}. When all are asked for, some are ` +
    `refused, and jobs wait. Make engine.size (${config.engine.size}) and application.size ` +
    `(${config.application.size}) smaller, ${raise}, or put a pooler in transaction mode between. ` +
    'engine.adviseConnections() says what jobs need; see docs/connections.md.'
  )
}

/** A pool of one is enough for jobs that ask for one connection at a time, and only the guard says so when one does not. */
function waitsForItself({ config, ownsApplication }: ConnectionUse): string[] {
  const { application, guard, queues } = config
  if (!ownsApplication || application.size > 1 || guard.mode !== 'off' || queues.size === 0) return []
  return [
    'The application pool has one connection, and the guard is off: a transaction that asks for a second connection ' +
      `(a statement beside it, engine.transaction inside it) waits for itself, for ${application.acquireTimeoutMs} ms, ` +
      "and nobody says so. Set application: { size: 2 } or more, or guard: { mode: 'warn' }.",
  ]
}

/** A wait that is shorter is nothing to warn of, whatever the shares: jobs that hold for milliseconds queue for milliseconds. */
const LEAST_WAIT_MS = 1_000

function waitsInVain(use: ConnectionUse, observed: readonly ObservedTask[]): string[] {
  const { applicationPool, acquireTimeoutMs } = poolsOf(use)
  const load = observedLoad(observed, concurrencyOf(use.config))
  if (applicationPool === undefined || !load?.checkouts) return []
  const lastWaitsMs = (load.concurrency * load.holdMs) / load.checkouts / applicationPool
  if (lastWaitsMs < LEAST_WAIT_MS) return []
  const { problems } = adviseConnections(load, { applicationPool, acquireTimeoutMs })
  const seen = `Jobs that ran lately held a connection for ${Math.round(load.holdMs)} ms each. `
  return problems.map((problem) => `${seen}${problem} See docs/connections.md.`)
}

function limitsOf(use: ConnectionUse): ReturnType<typeof connectionLimits> {
  const own = connectionsOf(use)
  return connectionLimits(use.database, {
    name: use.config.name,
    roles: [...new Set(own.map(({ user }) => user))],
    databases: [...new Set(own.map(({ database }) => database))],
  })
}

function poolsOf({ config, ownsApplication }: ConnectionUse): {
  applicationPool?: number
  enginePool?: number
  acquireTimeoutMs: number
} {
  const { application, engine } = config
  const { acquireTimeoutMs } = application
  return ownsApplication
    ? { applicationPool: application.size, enginePool: engine.size, acquireTimeoutMs }
    : { acquireTimeoutMs }
}

function concurrencyOf({ queues }: EngineConfig): Record<string, number> {
  return Object.fromEntries([...queues].map(([name, { concurrency }]) => [name, concurrency]))
}

/** Those of a process that go to the engine's own server, as far as their URLs tell. */
function connectionsOf({ config, ownsApplication, listens }: ConnectionUse): Connections[] {
  const { engine, application, directUrl } = config
  const at = new pg.Client(engine.url)
  const ends: [string, number][] = [
    [engine.url, engine.size],
    ...(ownsApplication ? [[application.url, application.size] as [string, number]] : []),
    ...(listens ? [[directUrl, 1] as [string, number]] : []),
  ]
  return ends.flatMap(([url, size]) => {
    const { host, port, user = '', database = '' } = new pg.Client(url)
    return host === at.host && port === at.port ? [{ user, database, size }] : []
  })
}
