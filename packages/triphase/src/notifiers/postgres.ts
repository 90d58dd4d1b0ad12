import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { storedError } from '../errors.ts'
import { type Hint, type Notifier, type NotifierContext, parseHint } from '../notifier.ts'
import type { Database } from '../store/database.ts'
import { onEnginePool } from '../store/insert.ts'
import { listenStatement, notify, STILL_THERE } from '../store/notify.ts'

const RECONNECT_MS = [100, 250, 500, 1_000, 2_000, 4_000]
const CHECK_MS = 30_000
const CHECK_TIMEOUT_MS = 10_000
const GOODBYE_MS = 1_000

/**
 * LISTEN and NOTIFY, over one direct connection of its own (never a pooled one: a transaction-mode pooler accepts
 * LISTEN and delivers nothing). A lost connection is opened again for as long as the engine runs.
 */
export function postgresNotifier(): Notifier {
  let listening: Listening | undefined
  return {
    name: 'postgres',
    async start(context) {
      listening ??= new Listening(context)
      await listening.firstTry
    },
    async publish(database: Database, hints: readonly Hint[]) {
      await notify(onEnginePool(database), database.schema, hints)
    },
    async stop() {
      const stopping = listening
      listening = undefined
      await stopping?.stop()
    },
  }
}

class Listening {
  readonly firstTry: Promise<void>
  readonly #context: NotifierContext
  #client: pg.Client | undefined
  #retry: NodeJS.Timeout | undefined
  #check: NodeJS.Timeout | undefined
  #failures = 0
  #stopped = false

  constructor(context: NotifierContext) {
    this.#context = context
    this.firstTry = this.#connect()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    clearInterval(this.#check)
    await this.firstTry
    const client = this.#client
    this.#client = undefined
    if (client) await goodbye(client)
  }

  async #connect(): Promise<void> {
    const { directUrl, applicationName } = this.#context
    const client = new pg.Client({
      connectionString: directUrl ?? undefined,
      application_name: `${applicationName}-listen`,
      connectionTimeoutMillis: 10_000,
      query_timeout: CHECK_TIMEOUT_MS,
      keepAlive: true,
    })
    client.on('error', (error) => this.#lost(client, error))
    client.on('end', () => this.#lost(client, new Error('the connection was closed')))
    client.on('notification', ({ payload }) => this.#received(payload ?? ''))
    this.#client = client
    try {
      await client.connect()
      await client.query(listenStatement(this.#context.database.schema))
    } catch (error) {
      this.#lost(client, error)
      return
    }
    if (this.#client === client) this.#connected(client)
  }

  #connected(client: pg.Client): void {
    const again = this.#failures > 0
    this.#failures = 0
    this.#context.telemetry.emit('notifier:changed', { notifier: 'postgres', connected: true, error: null })
    // A network that drops packets says nothing: a question now and then finds out.
    this.#check = setInterval(() => {
      client.query(STILL_THERE).catch((error: unknown) => this.#lost(client, error))
    }, CHECK_MS)
    this.#check.unref()
    if (again) this.#context.receive({ kind: 'resync' })
  }

  #received(payload: string): void {
    const hint = parseHint(payload)
    if (hint) this.#context.receive(hint)
  }

  #lost(client: pg.Client, error: unknown): void {
    if (this.#client !== client || this.#stopped) return
    this.#client = undefined
    clearInterval(this.#check)
    void goodbye(client)
    const pause = RECONNECT_MS[Math.min(this.#failures, RECONNECT_MS.length - 1)] as number
    this.#failures++
    this.#context.telemetry.emit('notifier:changed', {
      notifier: 'postgres',
      connected: false,
      error: storedError(error),
    })
    this.#retry = setTimeout(() => void this.#connect(), pause)
  }
}

/** Ends a connection in good order if the server is there to hear it; a network that is away would keep us for ever. */
async function goodbye(client: pg.Client): Promise<void> {
  const ended = client.end().catch(() => {})
  await Promise.race([ended, delay(GOODBYE_MS, undefined, { ref: false })])
  const { connection } = client as unknown as { connection: { stream: { destroy(): void } } }
  connection.stream.destroy()
}
