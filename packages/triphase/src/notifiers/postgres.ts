import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { storedError, TriphaseError } from '../errors.ts'
import { type Hint, type Notifier, type NotifierContext, parseHint } from '../notifier.ts'
import { type ConnectionListener, connectionFailure, Database } from '../store/database.ts'
import { onEnginePool } from '../store/insert.ts'
import { listenStatement, notify, STILL_THERE } from '../store/notify.ts'
import { isBehindPooler, shareServerConnections } from '../store/server.ts'
import { Poller } from './polling.ts'

const RECONNECT_MS = [100, 250, 500, 1_000, 2_000, 4_000]
/** Longer than the longest of these pauses: a connection that stood for so long was none that failed. */
const LASTING_MS = 5_000
const CHECK_MS = 30_000
const TIMEOUT_MS = 10_000
const GOODBYE_MS = 1_000
/** A notification that has not come back by then does not come: this process polls. */
const PROBE_MS = 2_000
/** What a start waits at most to see its probe come back. */
const START_MS = 250
/** Failed connections in a row after which this process polls. */
const POLL_AFTER = 3

/**
 * LISTEN and NOTIFY. Listens on the heartbeat's connection, or, where `directUrl` is another URL than the engine's, on one
 * of its own (a transaction-mode pooler accepts LISTEN and delivers nothing). A lost connection is opened again for as long
 * as the engine runs.
 *
 * Each new connection is tried out: a notification is sent through the engine's pool and has to arrive. Where it does
 * not, or a pooler is seen that lends out the heartbeat's connection, that is said once (`notifier:changed`,
 * `NOTIFICATIONS_LOST`), and the process polls as `pollingNotifier` does.
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
  readonly #connection: Database
  #listener: ConnectionListener | undefined
  #deafen = () => {}
  #probe: Probe | undefined
  #retry: NodeJS.Timeout | undefined
  #check: NodeJS.Timeout | undefined
  #limit: NodeJS.Timeout | undefined
  #failures = 0
  /** Since when this connection hears. */
  #heardAt: number | undefined
  #stopped = false
  /** What was last said about this connection, and whether it was that notifications do not come back. */
  #connected: boolean | undefined
  #saidDeaf = false

  constructor(context: NotifierContext) {
    this.#context = context
    this.#poller = new Poller(context)
    this.#connection = context.session ?? openConnection(context)
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
    this.#listener = undefined
    this.#deafen()
    if (this.#context.session) return
    // A network that is away would keep us for as long as a statement may take.
    await Promise.race([this.#connection.end(), delay(GOODBYE_MS, undefined, { ref: false })])
  }

  async #connect(): Promise<void> {
    const listener: ConnectionListener = {
      notified: (payload) => this.#received(listener, payload),
      lost: (error) => this.#lost(listener, error),
    }
    this.#listener = listener
    try {
      if (await this.#isLentOut()) {
        this.#poller.start()
        this.#deaf(listener)
        return
      }
      this.#deafen = await this.#connection.listen(listenStatement(this.#context.database.schema), listener)
    } catch (error) {
      this.#lost(listener, error)
      return
    }
    if (this.#listener === listener && !this.#stopped) await this.#tryOut(listener)
  }

  /**
   * Whether a pooler lends the heartbeat's connection to whoever has a transaction. A LISTEN would hear nothing, and stay
   * behind on a connection that others get: PgBouncer logs a warning for each notification that arrives there.
   */
  async #isLentOut(): Promise<boolean> {
    const { session, database } = this.#context
    if (!session || !(await isBehindPooler(session))) return false
    return shareServerConnections(onEnginePool(session), onEnginePool(database))
  }

  /** Sends a notification to itself, and polls until it has come back. Resolves soon in any case. */
  async #tryOut(listener: ConnectionListener): Promise<void> {
    this.#poller.start()
    this.#check = setInterval(() => this.#lookAgain(listener), CHECK_MS).unref()
    await Promise.race([this.#sendProbe(listener).arrived, delay(START_MS, undefined, { ref: false })])
  }

  #sendProbe(listener: ConnectionListener): Probe {
    const hint = { kind: 'probe', token: randomUUID() }
    const { promise, resolve } = Promise.withResolvers<void>()
    const probe: Probe = { hint, payload: JSON.stringify(hint), arrived: promise, end: resolve }
    this.#endProbe()
    this.#probe = probe
    void this.#publishProbe(listener, probe)
    return probe
  }

  /** Over the engine's pool: on this connection it would come back even through a pooler. */
  async #publishProbe(listener: ConnectionListener, probe: Probe): Promise<void> {
    const { database, telemetry } = this.#context
    clearTimeout(this.#limit)
    try {
      await notify(onEnginePool(database), database.schema, [probe.hint])
      if (this.#probe === probe) this.#limit = setTimeout(() => this.#judge(listener, probe, false), PROBE_MS)
    } catch (error) {
      if (this.#probe !== probe) return
      const failed = { statement: 'notify', error: storedError(error), retryInMs: PROBE_MS }
      telemetry.emit('statement:failed', failed)
      this.#limit = setTimeout(() => this.#sendProbe(listener), PROBE_MS)
    }
  }

  /** A network that drops packets says nothing: a question now and then finds out, where no heartbeat asks. */
  #lookAgain(listener: ConnectionListener): void {
    if (this.#connected !== true) this.#sendProbe(listener)
    else if (!this.#context.session)
      this.#connection.query(STILL_THERE).catch((error: unknown) => this.#lost(listener, error))
  }

  #received(listener: ConnectionListener, payload: string): void {
    if (this.#listener !== listener) return
    if (payload === this.#probe?.payload) this.#judge(listener, this.#probe, true)
    const hint = parseHint(payload)
    if (hint) this.#context.receive(hint)
  }

  /**
   * Sends the probe again while a statement runs on the connection, a heartbeat: what arrives comes when it is over, and
   * behind a pooler it is lent the server's connection that listens for just as long as it runs.
   */
  #judge(listener: ConnectionListener, probe: Probe, arrived: boolean): void {
    if (this.#connection.connections.inUse > 0) void this.#publishProbe(listener, probe)
    else if (arrived) this.#hears()
    else this.#deaf(listener)
  }

  #hears(): void {
    const again = this.#failures > 0 || this.#connected === false
    this.#endProbe()
    this.#heardAt = performance.now()
    this.#saidDeaf = false
    this.#poller.stop()
    this.#say(true, null)
    if (again) this.#context.receive({ kind: 'resync' })
  }

  #deaf(listener: ConnectionListener): void {
    if (this.#listener !== listener || this.#stopped) return
    this.#failures = 0
    if (this.#saidDeaf) return
    this.#saidDeaf = true
    this.#say(false, notificationsLost())
  }

  #lost(listener: ConnectionListener, error: unknown): void {
    if (this.#listener !== listener || this.#stopped) return
    this.#listener = undefined
    this.#endChecks()
    // One that is lost as soon as it hears is a failure too: where the server only reads, each heartbeat ends it.
    if (this.#heardAt !== undefined && performance.now() - this.#heardAt > LASTING_MS) this.#failures = 0
    this.#heardAt = undefined
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
  readonly hint: object
  readonly payload: string
  /** Resolves when it has come back, or is of no interest any more. */
  readonly arrived: Promise<void>
  end(): void
}

function notificationsLost(): TriphaseError {
  return new TriphaseError(
    'NOTIFICATIONS_LOST',
    'Notifications do not come through: the URL leads through a transaction-mode ' +
      'pooler, or to another database than the engine uses. Set directUrl to a URL around the pooler. Until then this ' +
      'process asks for work (with its heartbeat when idle, up to 1,200 times a minute while jobs come)',
  )
}

function openConnection({ database, directUrl, applicationName }: NotifierContext): Database {
  return new Database(database.schema, {
    url: directUrl,
    size: 1,
    applicationName: `${applicationName}-listen`,
    acquireTimeoutMs: TIMEOUT_MS,
    statementTimeoutMs: TIMEOUT_MS,
  })
}
