import type pg from 'pg'
import type { TestContext } from 'vitest'
import { type CreateEngineOptions, createEngine, type Engine, type TelemetryEvents } from '../../src/index.ts'
import type { TestSchema } from '../../src/testing/index.ts'
import { testDatabaseUrl, testUrl } from '../support/database-url.ts'
import { takeTestSchema } from '../support/engines.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { type EngineProcess, startEngine, type WorkerSettings } from './worker-processes.ts'

export type PgEngine = Engine<pg.PoolClient>
export type StartedProcess = EngineProcess & { processId: string }

const ALARMS = ['jobs:rescued', 'process:lost', 'job:lost', 'job:retried'] as const
type Alarm = (typeof ALARMS)[number]

/** One test's schema, proxies, engines and processes. Tests that run at the same time share none of them. */
export class Scene {
  readonly schema: TestSchema
  readonly #context: TestContext

  constructor(schema: TestSchema, context: TestContext) {
    this.schema = schema
    this.#context = context
  }

  async proxy(): Promise<FaultProxy> {
    const proxy = await startFaultProxy(serverAddress(testUrl()))
    this.#context.onTestFinished(() => proxy.close())
    return proxy
  }

  engine(options: Partial<CreateEngineOptions<pg.PoolClient>> = {}): PgEngine {
    const { url, schema } = this.schema
    const directUrl = options.url ? {} : { directUrl: testDatabaseUrl() }
    const pools = { engine: { size: 3 } }
    const engine = createEngine({ url, schema, ...directUrl, ...pools, abortGrace: '500ms', ...options })
    this.#context.onTestFinished(() => engine.stop({ graceMs: 0 }))
    return engine
  }

  async process(
    options: WorkerSettings['options'],
    settings: Partial<WorkerSettings> = {},
  ): Promise<StartedProcess> {
    const { url, schema } = this.schema
    const started = await startEngine({ url, schema, ...settings, options: { ...options } })
    this.#context.onTestFinished(() => started.dispose())
    return started
  }

  rows<Row = Record<string, unknown>>(sql: string, values: unknown[] = []): Promise<Row[]> {
    return this.schema.database.query<Row>(sql, values)
  }

  /** Waits until no live job is left. */
  async allDone(timeout = 20_000): Promise<void> {
    await eventually(async () => (await this.rows(`SELECT FROM triphase.job`)).length === 0, { timeout })
  }

  /** Waits until so many jobs are executing. */
  async executing(count: number): Promise<void> {
    const running = `SELECT FROM triphase.job WHERE state = 'executing'`
    await eventually(async () => (await this.rows(running)).length === count)
  }

  /** Waits until every process that is registered now has beaten so many times more. */
  async beats(more: number): Promise<void> {
    const read = async () => {
      const rows = await this.rows<{ id: string; beat: string }>(`SELECT id, beat FROM triphase.process`)
      return new Map(rows.map(({ id, beat }) => [id, Number(beat)]))
    }
    const before = await read()
    const enough = async () => {
      const now = await read()
      return [...before].every(([id, beat]) => (now.get(id) ?? 0) >= beat + more)
    }
    await eventually(enough, { timeout: 60_000, interval: 50 })
  }

  /** Keeps, from now on, everything that must not happen to the living. */
  alarmsOf(engines: readonly PgEngine[], names: readonly Alarm[] = ALARMS): string[] {
    const heard: string[] = []
    for (const engine of engines) {
      for (const name of names)
        engine.telemetry.on(name, (event: TelemetryEvents[typeof name]) => {
          heard.push(`${name} ${JSON.stringify(event)}`)
        })
    }
    return heard
  }
}

/** @param pool schemas for tests that change the tables themselves are a pool of their own. */
export async function sceneOf(context: TestContext, pool?: string): Promise<Scene> {
  const schema = await takeTestSchema(pool)
  context.onTestFinished(() => schema.release())
  return new Scene(schema, context)
}

/** The length of an outage, a sleep or a stop: the one thing that only time can make. */
export function lasting(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
