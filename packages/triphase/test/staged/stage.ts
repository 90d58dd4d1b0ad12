import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, onTestFailed, test } from 'vitest'
import type { CreateEngineOptions, Engine, EnqueueOptions, Job, TelemetryEvents } from '../../src/index.ts'
import { findJob } from '../../src/store/inspect.ts'
import { type LocalCountingApi, startCountingApi } from '../support/counting-api.ts'
import { isPooled, testDatabaseUrl, testUrl } from '../support/database-url.ts'
import { type Bench, useEngines } from '../support/engines.ts'
import {
  type Fault,
  type FaultHandle,
  type FaultOptions,
  type FaultProxy,
  serverAddress,
  startFaultProxy,
} from '../support/fault-proxy.ts'
import { eventually, killWorkers, spawnWorker, type WorkerProcess } from '../support/processes.ts'
import { type NoteTaskOptions, noteTask } from './note-task.ts'
import { type Statement, statementOf } from './statements.ts'
import { readTable } from './table.ts'

type PgEngine = Engine<pg.PoolClient>
type TaskSettings = Partial<NoteTaskOptions>
type EngineSettings = Partial<CreateEngineOptions<pg.PoolClient>>

const TABLE_ROWS = new Map(readTable().map((row) => [row.id, row]))
const ENDED = new Set(['completed', 'cancelled', 'discarded'])
const QUICK: EngineSettings = { heartbeat: '100ms', deadAfter: '300ms', queues: { default: 2 } }

/** Gives a test file a stage, new for each test. */
export function useStage(): Stage {
  const stage = new Stage()
  // After hooks run in reverse order: the faults end, then the engines stop, then the proxy closes.
  beforeEach(() => stage.open())
  afterEach(() => stage.close())
  stage.bench = useEngines()
  afterEach(() => stage.endFaults())
  afterAll(() => stage.end())
  beforeAll(() => stage.createTable())
  return stage
}

/** One application, one API, one job, and engines by name, each behind a proxy that makes faults happen. */
export class Stage {
  bench!: Bench
  api!: LocalCountingApi
  proxy!: FaultProxy
  /** Enqueues, cancels, retries, past the proxy; it runs nothing. */
  client!: PgEngine
  readonly #direct = new pg.Pool({ connectionString: testDatabaseUrl(), max: 3 })
  #engines: PgEngine[] = []
  #faults: FaultHandle[] = []
  #events: { engine: string; event: string; details: object }[] = []

  /**
   * The test of a row of the table in the docs. `run` makes the fault happen to one job and returns its id; when the
   * job has ended, calls, job, attempt and the application's row must be what the table says.
   */
  row(id: string, run: () => Promise<string>): void {
    const row = TABLE_ROWS.get(id)
    if (!row) throw new Error(`docs/staged-tasks.md has no row ${id}`)
    test(`${id}: ${row.when}`, async () => {
      onTestFailed(() => console.error(this.#events.map((event) => JSON.stringify(event)).join('\n')))
      const jobId = await run()
      await this.ended(jobId)
      await Promise.all(this.#engines.map((engine) => engine.stop({ graceMs: 5_000 })))
      const { calls, job, attempt, row: status } = row
      expect(await this.#outcome(jobId)).toEqual({ calls, job, attempt, row: status })
      await this.#expectSound(jobId)
    })
  }

  async engine(name: string, task: TaskSettings = {}, settings: EngineSettings = {}): Promise<PgEngine> {
    const { api, table } = this
    const engine = this.bench.engine({
      ...QUICK,
      url: this.proxy.url(testUrl()),
      name: this.named(name),
      tasks: [noteTask({ api: api.url, table, ...task })],
      ...settings,
    })
    this.#engines.push(engine)
    engine.telemetry.onAny((event, details) => {
      if (event !== 'pool:held') this.#events.push({ engine: name, event, details })
    })
    await engine.start()
    return engine
  }

  /** An engine in a process of its own. */
  async worker(name: string, env: Record<string, string> = {}): Promise<WorkerProcess> {
    const { api, table } = this
    const worker = spawnWorker(new URL('./note.worker.ts', import.meta.url), {
      env: {
        URL: this.proxy.url(testUrl()),
        SCHEMA: this.schema,
        NAME: this.named(name),
        API: api.url,
        TABLE: table,
        ...env,
      },
    })
    await worker.waitForLine(/^process:started/)
    return worker
  }

  async enqueue(options: EnqueueOptions = {}): Promise<string> {
    const { id } = await this.client.enqueue(noteTask({ api: '', table: '' }), { key: 'note' }, options)
    return id
  }

  /** The first event of this kind that the engine has reported, or will. */
  seen<Name extends keyof TelemetryEvents>(
    engine: string,
    event: Name,
    matches: (details: TelemetryEvents[Name]) => boolean = () => true,
  ): Promise<TelemetryEvents[Name]> {
    return eventually(() => this.events(engine, event).find(matches) ?? false, { interval: 5 }) as Promise<
      TelemetryEvents[Name]
    >
  }

  /** What the engine has reported of this kind so far. */
  events<Name extends keyof TelemetryEvents>(engine: string, event: Name): TelemetryEvents[Name][] {
    const found = this.#events.filter((each) => each.engine === engine && each.event === event)
    return found.map(({ details }) => details as TelemetryEvents[Name])
  }

  /** A fault at a statement of an engine. */
  at(engine: string, statement: Statement, fault: Fault, options: FaultOptions = {}): FaultHandle {
    const handle = this.proxy.onStatement(statementOf(this.named(engine), statement), fault, options)
    this.#faults.push(handle)
    return handle
  }

  /** Cuts an engine's connections, and waits until the server has noticed. */
  async cut(engine: string): Promise<void> {
    const name = this.named(engine)
    this.proxy.cutAll({ applicationName: new RegExp(`^${name}(-|$)`) })
    // A pooler keeps its connection to the server when a client's is gone, and ends what that client had begun.
    const left = isPooled() ? `state <> 'idle'` : 'true'
    await eventually(async () => {
      const sessions = `SELECT FROM pg_stat_activity WHERE application_name IN ($1, $1 || '-engine') AND ${left}`
      return (await this.sql(sessions, [name])).length === 0
    })
  }

  /** Waits until the job has ended. */
  async ended(id: string): Promise<Job> {
    return eventually(async () => {
      const job = await this.job(id)
      expect(job.state).toSatisfy((state) => ENDED.has(state))
      return job
    })
  }

  async job(id: string): Promise<Job> {
    const job = await findJob(this.bench.schema.database, id)
    if (!job) throw new Error(`there is no job ${id}`)
    return job
  }

  /** Steps of which an answer is stored. */
  async storedSteps(id: string): Promise<string[]> {
    const text = `SELECT step FROM ${this.schema}.answer WHERE job_id = $1 ORDER BY step`
    return (await this.sql(text, [id])).map(({ step }) => step as string)
  }

  /** Waits until a step's answer is stored. */
  async stored(id: string, step: string): Promise<void> {
    await eventually(async () => expect(await this.storedSteps(id)).toContain(step))
  }

  /** Waits until so many calls have reached the API. */
  async called(times: number): Promise<void> {
    await eventually(() => expect(this.api.calls).toBe(times))
  }

  /** Waits until the callers of so many calls have gone away. */
  async hungUp(times: number): Promise<void> {
    await eventually(() => expect(this.api.aborted).toBe(times))
  }

  get schema(): string {
    return this.bench.schema.schema
  }

  /** The application's table: one row a note. */
  get table(): string {
    return `public.${this.schema}_note`
  }

  /** The name of an engine and of its connections. Test files share a server: the schema makes it unique. */
  named(engine: string): string {
    return `${this.schema}/${engine}`
  }

  /** Past the proxy. */
  async sql(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    return (await this.#direct.query(text, values)).rows
  }

  /** The text that was written down, and how often `prepare` was committed. */
  async note(): Promise<{ text: unknown; prepares: number }> {
    const [note] = await this.sql(`SELECT text, prepares FROM ${this.table}`)
    return note as { text: unknown; prepares: number }
  }

  async open(): Promise<void> {
    this.#engines = []
    this.#events = []
    this.#faults = []
    this.api = await startCountingApi()
    this.proxy = await startFaultProxy(serverAddress(testUrl()))
    this.client = this.bench.engine({ name: this.named('client'), engine: { size: 2 } })
    await this.sql(`DELETE FROM ${this.table}`)
  }

  async endFaults(): Promise<void> {
    for (const fault of this.#faults) {
      fault.remove()
      fault.release()
    }
    this.proxy.refuse(false)
    this.proxy.freeze(false)
    await killWorkers()
  }

  async close(): Promise<void> {
    await this.proxy.close()
    await this.api.close()
  }

  async createTable(): Promise<void> {
    await this.sql(`CREATE TABLE IF NOT EXISTS ${this.table} (
      id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, key text NOT NULL UNIQUE,
      status text NOT NULL DEFAULT 'begun', text json,
      prepares integer NOT NULL DEFAULT 1, commits integer NOT NULL DEFAULT 0)`)
  }

  async end(): Promise<void> {
    await this.sql(`DROP TABLE ${this.table}`)
    await this.#direct.end()
  }

  async #outcome(id: string): Promise<object> {
    const { state, attempt } = await this.job(id)
    const rows = await this.sql(`SELECT status FROM ${this.table}`)
    const row = rows.length === 0 ? 'none' : rows.map(({ status }) => status).join()
    return { calls: this.api.calls, job: state, attempt, row }
  }

  /** What holds after every fault. */
  async #expectSound(id: string): Promise<void> {
    const { state } = await this.job(id)
    const [note] = await this.sql(`SELECT status, commits FROM ${this.table}`)
    if (note) expect(note.commits).toBe(note.status === 'begun' ? 0 : 1)
    expect(new Set(this.api.log.map(({ idempotencyKey }) => idempotencyKey)).size).toBeLessThanOrEqual(1)
    if (state === 'completed') expect(await this.storedSteps(id)).toEqual([])
    const { schema } = this
    expect(await this.sql(`SELECT FROM ${schema}.job`)).toEqual([])
    expect(await this.sql(`SELECT FROM ${schema}.job_history`)).toHaveLength(1)
  }
}
