import pg from 'pg'
import { type CreateEngineOptions, createEngine, type Engine, pgTransactor, type Sweep } from 'triphase'
import { ANALYSIS_QUEUE, type AnalyseCapture, analyseCapture } from './analyse-capture.ts'
import { type OpenDatabase, openDatabase, whileAway } from './database.ts'
import { migrateScout } from './migrate.ts'
import { resolveModel, type VisionModel } from './models/resolve.ts'
import type { ObjectStore } from './object-store.ts'
import { openObjectStore } from './object-stores/open.ts'
import type { Settings } from './settings.ts'

/** Everything that Scout works with, open, migrated and running. */
export interface Backend {
  readonly settings: Settings
  readonly pool: pg.Pool
  readonly engine: Engine<pg.PoolClient>
  readonly model: VisionModel
  readonly store: ObjectStore
  readonly task: AnalyseCapture
  /** A connection beside the pools only listens, around a pooler. */
  readonly listener: boolean
  /** For people: which database this is. Never contains a password. */
  readonly databaseDescription: string
  /** Starts the embedded database again where its server has ended. */
  reviveDatabase(): Promise<void>
  /** Starts to work on jobs. */
  start(): Promise<void>
  /** Stops the engine, gracefully for so long, and closes everything. */
  close(graceMs: number): Promise<void>
}

const START_WAIT_MS = 60_000
const CONNECT_MS = 30_000
// Longer than anything that Scout asks takes; it ends what waits on a network that drops packets.
const QUERY_MS = 30_000

/** What calls are made with. */
export type BackendParts = Pick<Backend, 'settings' | 'model' | 'store' | 'pool'>

/** What a process works on: analyses, or a sweep. */
type Work = (
  parts: BackendParts,
  task: AnalyseCapture,
) => Pick<CreateEngineOptions<pg.PoolClient>, 'tasks' | 'queues'>

/** Jobs of a sweep: what drives it, and pages enough for its calls. */
const SWEEP_JOBS = 4

/**
 * Opens database, object store and model, and brings both schemas up to date. A database that is starting or away is
 * waited for, for a minute. Its jobs are analyses.
 *
 * @param tell says what takes its time, a line at a time.
 * @throws what cannot be waited out: a refused login, missing rights; or the signal's reason.
 */
export async function openBackend(
  settings: Settings,
  tell: (line: string) => void,
  signal: AbortSignal,
): Promise<Backend> {
  return open(settings, tell, signal, (_, task) => ({
    tasks: [task],
    queues: { [ANALYSIS_QUEUE]: settings.concurrency },
  }))
}

/**
 * The same for a sweep, whose queue is called as it is. Its jobs are the sweep's alone: an analysis or another list that
 * was interrupted stays where it is, and two lists at once do not take each other's jobs.
 */
export async function openSweepBackend<S extends Sweep>(
  settings: Settings,
  define: (parts: BackendParts) => S,
  tell: (line: string) => void,
  signal: AbortSignal,
): Promise<Backend & { sweep: S }> {
  let sweep: S | undefined
  const backend = await open(settings, tell, signal, (parts) => {
    sweep = define(parts)
    return { tasks: [sweep], queues: { [sweep.name]: SWEEP_JOBS } }
  })
  return { ...backend, sweep: sweep as S }
}

async function open(
  settings: Settings,
  tell: (line: string) => void,
  signal: AbortSignal,
  work: Work,
): Promise<Backend> {
  const database = await openDatabase(settings)
  const backend = await assemble(settings, database, work)
  const whenReachable = whileAway({ tell, revive: database.revive, signal, atMostMs: START_WAIT_MS })
  try {
    await whenReachable(() => backend.engine.migrate())
    await whenReachable(() => migrateScout(backend.pool))
    return { ...backend, start: () => whenReachable(() => backend.engine.start()) }
  } catch (error) {
    await backend.close(0)
    throw error
  }
}

async function assemble(
  settings: Settings,
  database: OpenDatabase,
  work: Work,
): Promise<Omit<Backend, 'start'>> {
  try {
    return parts(settings, database, work)
  } catch (error) {
    await database.close()
    throw error
  }
}

function parts(settings: Settings, database: OpenDatabase, work: Work): Omit<Backend, 'start'> {
  const store = openObjectStore(settings.store)
  const model = resolveModel(settings.model)
  const pool = openPool(settings, database.url)
  const task = analyseCapture({ model, store, timeoutMs: settings.callTimeoutMs })
  const engine = createEngine({
    name: 'scout',
    engine: { url: database.url, size: settings.enginePool },
    directUrl: database.directUrl,
    transactor: pgTransactor(pool),
    ...work({ settings, model, store, pool }, task),
  })
  const close = async (graceMs: number) => {
    await engine.stop({ graceMs })
    await pool.end()
    await model.close()
    store.close()
    await database.close()
  }
  const listener = database.directUrl !== database.url
  return {
    settings,
    pool,
    engine,
    model,
    store,
    task,
    listener,
    databaseDescription: database.description,
    reviveDatabase: database.revive,
    close,
  }
}

function openPool(settings: Settings, url: string): pg.Pool {
  const pool = new pg.Pool({
    connectionString: url,
    max: settings.appPool,
    application_name: 'scout',
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: QUERY_MS,
    keepAlive: true,
  })
  // A server that closes idle connections is nothing unusual: the pool opens others.
  pool.on('error', () => {})
  return pool
}
