import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { startEmbeddedPostgres } from '@triphase/embedded'
import pg from 'pg'
import { createEngine, type Engine, pgTransactor, TriphaseError } from 'triphase'
import { type AnalyseCapture, analyseCapture } from './analyse-capture.ts'
import { migrateScout } from './migrate.ts'
import { resolveModel, type VisionModel } from './models/resolve.ts'
import type { ObjectStore } from './object-store.ts'
import { openObjectStore } from './object-stores/open.ts'
import type { Settings } from './settings.ts'

/** Everything that Scout works with, open and migrated. */
export interface Backend {
  readonly settings: Settings
  readonly pool: pg.Pool
  readonly engine: Engine<pg.PoolClient>
  readonly model: VisionModel
  readonly store: ObjectStore
  readonly task: AnalyseCapture
  /** For people: which database this is. Never contains a password. */
  readonly databaseDescription: string
  /** Stops the engine, gracefully for so long, and closes everything. */
  close(graceMs: number): Promise<void>
}

const DATABASE_WAIT_MS = 60_000

/**
 * Opens database, object store and model, and brings both schemas up to date.
 *
 * @param tell says what takes its time, a line at a time.
 * @throws what cannot be waited out: a refused login, missing rights, a server that does not come within a minute.
 */
export async function openBackend(settings: Settings, tell: (line: string) => void): Promise<Backend> {
  const database = await openDatabase(settings)
  const store = openObjectStore(settings.store)
  const model = resolveModel(settings.model)
  const pool = new pg.Pool({
    connectionString: database.url,
    max: settings.appPool,
    application_name: 'scout',
    connectionTimeoutMillis: 30_000,
  })
  // A server that closes idle connections is nothing unusual: the pool opens others.
  pool.on('error', () => {})
  const task = analyseCapture({ model, store, timeoutMs: settings.callTimeoutMs })
  const engine = createEngine({
    name: 'scout',
    engine: { url: database.url, size: settings.enginePool },
    directUrl: settings.databaseDirectUrl?.reveal() ?? database.url,
    transactor: pgTransactor(pool),
    tasks: [task],
    queues: { processing: settings.concurrency },
  })
  const close = async (graceMs: number) => {
    await engine.stop({ graceMs })
    await pool.end()
    await model.close()
    store.close()
    await database.close()
  }
  try {
    await whenReachable(() => engine.migrate(), tell)
    await migrateScout(pool)
  } catch (error) {
    await close(0)
    throw error
  }
  return { settings, pool, engine, model, store, task, databaseDescription: database.description, close }
}

async function openDatabase(
  settings: Settings,
): Promise<{ url: string; description: string; close: () => Promise<void> }> {
  if (settings.databaseUrl) {
    const url = settings.databaseUrl.reveal()
    const { host, pathname } = new URL(url)
    return { url, description: `${host}${pathname}`, close: async () => {} }
  }
  const directory = path.join(settings.dataFolder, 'postgres')
  const server = await startEmbeddedPostgres({ directory })
  return { url: server.url, description: `embedded, in ${directory}`, close: () => server.stop() }
}

/** A database that is starting, or away for a moment, is waited for. */
async function whenReachable(work: () => Promise<unknown>, tell: (line: string) => void): Promise<void> {
  const deadline = Date.now() + DATABASE_WAIT_MS
  for (let pauseMs = 500; ; pauseMs = Math.min(5_000, pauseMs * 2)) {
    try {
      await work()
      return
    } catch (error) {
      const away = error instanceof TriphaseError && error.code === 'CONNECTION_FAILED'
      if (!away || Date.now() + pauseMs > deadline) throw error
      tell(`${error.message} Trying again in ${pauseMs / 1_000} s.`)
      await delay(pauseMs)
    }
  }
}
