import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { storedError, TriphaseError } from '../errors.ts'
import { type Hint, type Notifier, type NotifierContext, parseHint } from '../notifier.ts'
import { connectionFailure, type Database } from '../store/database.ts'
import { onEnginePool } from '../store/insert.ts'
import { listenStatement, notify, STILL_THERE } from '../store/notify.ts'
import { Poller } from './polling.ts'

const RECONNECT_MS = [100, 250, 500, 1_000, 2_000, 4_000]
const CHECK_MS = 30_000
const CHECK_TIMEOUT_MS = 10_000
const GOODBYE_MS = 1_000
/** A notification that has not come back by then does not come: this process polls. */
const PROBE_MS = 2_000
/** What a start waits at most to see its probe come back. */
const START_MS = 250
/** Failed connections in a row after which this process polls. */
const POLL_AFTER = 3

/**
 * LISTEN and NOTIFY, over one direct connection of its own (never a pooled one: a transaction-mode pooler accepts
 * LISTEN and delivers nothing). A lost connection is opened again for as long as the engine runs.
 *
 * Each new connection is tried out: a notification is sent through the engine's pool and has to arrive. Where it does
 * not, that is said once (`notifier:changed`, `NOTIFICATIONS_LOST`), and the process polls as `pollingNotifier` does.
 *
 * @example
 * createEngine({ url: process.env.PGBOUNCER_URL, directUrl: process.env.DATABASE_URL, notifier: postgresNotifier() })
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
      if (hints.length > 0) listening?.quicken()
      await notify(onEnginePool(database), database.schema, hints)
    },
    observe(foundWork) {
      if (foundWork) listening?.quicken()
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
  readonly #poller: Poller
  #client: pg.Client | undefined
  #probe: Probe | undefined
  #retry: NodeJS.Timeout | undefined
  #check: NodeJS.Timeout | undefined
  #limit: NodeJS.Timeout | undefined
  #failures = 0
  #stopped = false
  /** What was last said about this connection, and whether it was that notifications do not come back. */
  #connected: boolean | undefined
  #saidDeaf = false

  constructor(context: NotifierContext) {
    this.#context = context
    this.#poller = new Poller(context)
    this.firstTry = this.#connect()
  }

  /** There is work: where this process polls, it polls quickly. */
  quicken(): void {
    this.#poller.quicken()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#retry)
    this.#endChecks()
    this.#poller.stop()
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
    client.on('notification', ({ payload }) => this.#received(client, payload ?? ''))
    this.#client = client
    try {
      await client.connect()
      await client.query(listenStatement(this.#context.database.schema))
    } catch (error) {
      this.#lost(client, error)
      return
    }
    if (this.#client === client && !this.#stopped) await this.#tryOut(client)
  }

  /** Sends a notification to itself, and polls until it has come back. Resolves soon in any case. */
  async #tryOut(client: pg.Client): Promise<void> {
    this.#poller.start()
    this.#check = setInterval(() => this.#lookAgain(client), CHECK_MS).unref()
    await Promise.race([this.#sendProbe(client).arrived, delay(START_MS, undefined, { ref: false })])
  }

  #sendProbe(client: pg.Client): Probe {
    const hint = { kind: 'probe', token: randomUUID() }
    const { promise, resolve } = Promise.withResolvers<void>()
    const probe: Probe = { payload: JSON.stringify(hint), arrived: promise, end: resolve }
    this.#endProbe()
    this.#probe = probe
    void this.#publishProbe(client, probe, hint)
    return probe
  }

  /** Over the engine's pool: on this connection it would come back even through a pooler. */
  async #publishProbe(client: pg.Client, probe: Probe, hint: object): Promise<void> {
    const { database, telemetry } = this.#context
    try {
      await notify(onEnginePool(database), database.schema, [hint])
      if (this.#probe === probe) this.#limit = setTimeout(() => this.#deaf(client), PROBE_MS)
    } catch (error) {
      if (this.#probe !== probe) return
      const failed = { statement: 'notify', error: storedError(error), retryInMs: PROBE_MS }
      telemetry.emit('statement:failed', failed)
      this.#limit = setTimeout(() => this.#sendProbe(client), PROBE_MS)
    }
  }

  /** A network that drops packets says nothing: a question now and then finds out. */
  #lookAgain(client: pg.Client): void {
    if (this.#connected === true) {
      client.query(STILL_THERE).catch((error: unknown) => this.#lost(client, error))
    } else this.#sendProbe(client)
  }

  #received(client: pg.Client, payload: string): void {
    if (this.#client !== client) return
    if (payload === this.#probe?.payload) this.#hears()
    const hint = parseHint(payload)
    if (hint) this.#context.receive(hint)
  }

  #hears(): void {
    const again = this.#failures > 0 || this.#connected === false
    this.#endProbe()
    this.#failures = 0
    this.#saidDeaf = false
    this.#poller.stop()
    this.#say(true, null)
    if (again) this.#context.receive({ kind: 'resync' })
  }

  #deaf(client: pg.Client): void {
    if (this.#client !== client || this.#stopped) return
    this.#failures = 0
    if (this.#saidDeaf) return
    this.#saidDeaf = true
    this.#say(false, notificationsLost())
  }

  #lost(client: pg.Client, error: unknown): void {
    if (this.#client !== client || this.#stopped) return
    this.#client = undefined
    this.#endChecks()
    void goodbye(client)
    const pause = RECONNECT_MS[Math.min(this.#failures, RECONNECT_MS.length - 1)] as number
    this.#failures++
    if (this.#failures >= POLL_AFTER) this.#poller.start()
    if (this.#connected !== false) this.#say(false, connectionFailure(error))
    this.#retry = setTimeout(() => void this.#connect(), pause)
  }

  #endChecks(): void {
    clearInterval(this.#check)
    this.#endProbe()
  }

  #endProbe(): void {
    clearTimeout(this.#limit)
    this.#probe?.end()
    this.#probe = undefined
  }

  #say(connected: boolean, error: Error | null): void {
    this.#connected = connected
    this.#context.telemetry.emit('notifier:changed', {
      notifier: 'postgres',
      connected,
      error: error && storedError(error),
    })
  }
}

interface Probe {
  readonly payload: string
  /** Resolves when it has come back, or is of no interest any more. */
  readonly arrived: Promise<void>
  end(): void
}

function notificationsLost(): TriphaseError {
  return new TriphaseError(
    'NOTIFICATIONS_LOST',
    'The database accepted LISTEN, but a notification did not come back: the URL leads through a transaction-mode ' +
      'pooler, or to another database than the engine uses. Set directUrl to a URL around the pooler. Until then this ' +
      'process asks for work (with its heartbeat when idle, up to 1,200 times a minute while jobs come)',
  )
}

/** Ends a connection in good order if the server is there to hear it; a network that is away would keep us for ever. */
async function goodbye(client: pg.Client): Promise<void> {
  const ended = client.end().catch(() => {})
  await Promise.race([ended, delay(GOODBYE_MS, undefined, { ref: false })])
  const { connection } = client as unknown as { connection: { stream: { destroy(): void } } }
  connection.stream.destroy()
}
