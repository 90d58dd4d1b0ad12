import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { createServer as createHttp2Server } from 'node:http2'
import type { AddressInfo, Server as NetServer } from 'node:net'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type {
  CreateEngineOptions,
  Engine,
  ErrorCode,
  TelemetryEvents,
  TransactionOptions,
} from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { type Bench, useEngines } from '../support/engines.ts'
import { type GuardRow, readTable } from './table.ts'

type Work<Value> = (tx: pg.PoolClient) => Promise<Value>

const ROWS = new Map(readTable().map((row) => [row.id, row]))
/** The line of the test, of the task or of the transaction itself. */
const OPENED = /packages\/triphase\/test\/guard\/[\w.-]+\.ts:\d+:\d+/
const MANY = 10_000

/** Gives a test file an engine with a guard, servers to call, and a table of marks that says what was committed. */
export function useScene(): GuardScene {
  const scene = new GuardScene()
  beforeEach(() => scene.open())
  afterEach(() => scene.close())
  scene.bench = useEngines()
  beforeAll(() => scene.begin())
  afterAll(() => scene.end())
  return scene
}

export class GuardScene {
  bench!: Bench
  engine!: Engine<pg.PoolClient>
  /** Host and port of a server that answers every request with JSON. */
  host!: string
  http2Host!: string
  /** Requests that have arrived. */
  requests: string[] = []
  /** What the guard has reported and not refused. */
  reports: string[] = []
  readonly pool = new pg.Pool({ connectionString: testUrl(), max: 4 })
  #servers: NetServer[] = []
  readonly #warned = (warning: Error & { code?: string }) => {
    if (warning.code === 'TRIPHASE_GUARD') this.reports.push(warning.message)
  }

  /** The test of a row of docs/guard.md: what `run` comes to, and whether its mark was committed. */
  row(id: string, run: () => Promise<unknown>): void {
    const row = ROWS.get(id)
    if (!row) throw new Error(`docs/guard.md has no row ${id}`)
    test(`${id}: ${row.what}`, async () => {
      const error = await run().then(
        () => undefined,
        (thrown: unknown) => thrown as Error & { code?: ErrorCode },
      )
      this.#expect(row, error)
      expect(await this.marks()).toEqual(row.outcome === 'refused' ? [] : ['mark'])
    })
  }

  /** The test of a row that makes one call inside `engine.transaction`. `prepared` is done before. */
  calls<Prepared>(
    id: string,
    call: (prepared: Prepared) => unknown,
    prepared: () => Promise<Prepared> = async () => undefined as Prepared,
  ): void {
    this.row(id, async () => {
      const before = await prepared()
      return this.transaction(async () => {
        await call(before)
      })
    })
  }

  /** A transaction of the engine that leaves a mark, and does `work`. Every statement is after the work as well. */
  transaction<Value>(work: Work<Value>, options: TransactionOptions = {}): Promise<Value> {
    return this.engine.transaction(async (tx) => {
      await this.mark(tx)
      const value = await work(tx)
      await tx.query('SELECT 1')
      return value
    }, options)
  }

  mark(client: { query(text: string): Promise<unknown> }): Promise<unknown> {
    return client.query(`INSERT INTO ${this.table} VALUES ('mark')`)
  }

  async marks(): Promise<string[]> {
    return (await this.pool.query(`SELECT name FROM ${this.table}`)).rows.map(({ name }) => name)
  }

  get table(): string {
    return `${this.bench.schema.schema}.marks`
  }

  get url(): string {
    return `http://${this.host}`
  }

  guarded(options: Partial<CreateEngineOptions<pg.PoolClient>> = {}): Engine<pg.PoolClient> {
    const engine = this.bench.engine({ guard: { maxHold: MANY }, ...options })
    engine.telemetry.on('guard:offence', (report) => this.#reported(report))
    return engine
  }

  async open(): Promise<void> {
    this.requests = []
    this.reports = []
    this.engine = this.guarded()
    await this.pool.query(`DELETE FROM ${this.table}`)
  }

  async close(): Promise<void> {}

  async begin(): Promise<void> {
    process.on('warning', this.#warned)
    await this.pool.query(`CREATE TABLE ${this.table} (name text)`)
    const server = createServer((request, response) => {
      this.requests.push(`${request.method} ${request.url}`)
      request.resume().on('end', () => {
        response
          .setHeader('content-type', 'application/json')
          .end(JSON.stringify(answerOf(request.url ?? '')))
      })
    })
    const http2Server = createHttp2Server((_request, response) => response.end('answer'))
    this.host = await listening(server)
    this.http2Host = await listening(http2Server)
    this.#servers = [server, http2Server]
  }

  async end(): Promise<void> {
    process.off('warning', this.#warned)
    for (const server of this.#servers) {
      server.close()
      if ('closeAllConnections' in server) (server as Server).closeAllConnections()
    }
    await this.pool.query(`DROP TABLE ${this.table}`)
    await this.pool.end()
  }

  #reported({ refused, message }: TelemetryEvents['guard:offence']): void {
    if (!refused) this.reports.push(message)
  }

  #expect({ outcome, named }: GuardRow, error: (Error & { code?: ErrorCode }) | undefined): void {
    if (outcome === 'refused') {
      const pattern = named.replace('HOST', String.raw`[\w.]+:\d+`)
      expect(error?.message).toMatch(new RegExp(`^${pattern}`, 'i'))
      expect(error?.message).toMatch(OPENED)
      expect(['CALL_IN_TRANSACTION', 'SECOND_CHECKOUT']).toContain(error?.code)
    } else {
      expect(error).toBeUndefined()
      const told = outcome === 'reported' ? [expect.stringContaining(named.replace('HOST', this.host))] : []
      expect(this.reports).toEqual(told)
    }
  }
}

async function listening(server: NetServer): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** What the SDKs take for an answer. */
function answerOf(path: string): unknown {
  if (path.includes('/chat/completions')) {
    const message = { role: 'assistant', content: 'a cat' }
    return {
      id: '1',
      object: 'chat.completion',
      created: 1,
      model: 'm',
      choices: [{ index: 0, message, finish_reason: 'stop' }],
      usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
    }
  }
  if (path.includes('/messages')) {
    return {
      id: '1',
      type: 'message',
      role: 'assistant',
      model: 'm',
      content: [{ type: 'text', text: 'a cat' }],
      stop_reason: 'end_turn',
      usage: { input_tokens: 1, output_tokens: 1 },
    }
  }
  return { answer: 'a cat' }
}
