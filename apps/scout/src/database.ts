import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { startEmbeddedPostgres } from '@triphase/embedded'
import type { Settings } from './settings.ts'

/** Where the database is, and how to give it up. */
export interface OpenDatabase {
  readonly url: string
  /** The same around a pooler, for LISTEN. */
  readonly directUrl: string
  /** For people. Never contains a password. */
  readonly description: string
  /** Starts the embedded one again where its server has ended, as when it was killed; does nothing to others. */
  revive(): Promise<void>
  close(): Promise<void>
}

// For tools that look into the database while Scout runs, and for a second run.
const SPARE_CONNECTIONS = 30

/** The database that the settings name, or else the embedded one, which is started. */
export async function openDatabase(settings: Settings): Promise<OpenDatabase> {
  if (settings.databaseUrl) {
    const url = settings.databaseUrl.reveal()
    const directUrl = settings.databaseDirectUrl?.reveal() ?? url
    const { host, pathname } = new URL(url)
    const nothing = async () => {}
    return { url, directUrl, description: `${host}${pathname}`, revive: nothing, close: nothing }
  }
  const directory = path.join(settings.dataFolder, 'postgres')
  const most = Math.max(100, 2 * (settings.appPool + settings.enginePool) + SPARE_CONNECTIONS)
  const start = () => startEmbeddedPostgres({ directory, settings: { max_connections: String(most) } })
  let server = await start()
  let reviving: Promise<void> | undefined
  const { url } = server
  const revive = async () => {
    const [before, now] = [server, await start()]
    server = now
    await before.stop()
    if (now.url !== url)
      throw new Error(`The database in ${directory} has another address now. Run the command again.`)
  }
  return {
    url,
    directUrl: url,
    description: `embedded (${directory})`,
    revive() {
      reviving ??= revive().finally(() => {
        reviving = undefined
      })
      return reviving
    },
    async close() {
      await reviving?.catch(() => {})
      await server.stop()
    },
  }
}

// The engine's words for it, the system's, and the server's: it shuts down, starts up, has crashed or too many clients.
const AWAY_CODE =
  /^(CONNECTION_FAILED|STATEMENT_TIMEOUT|E(CONN|PIPE|TIMEDOUT|HOST|NET|NOTFOUND|AI_AGAIN|NOENT)|08|57P0|53300)/
const AWAY_MESSAGE =
  /Connection terminated|not queryable|timeout exceeded when trying to connect|Query read timeout/i

/** What is known of an error, live or stored. */
interface ErrorFacts {
  readonly message: string
  readonly code?: unknown
}

/** Whether an error means that the database cannot be reached at the moment. */
export function isAway(error: unknown): error is ErrorFacts {
  if (typeof error !== 'object' || error === null || !('message' in error)) return false
  const { message, code } = error as ErrorFacts
  return AWAY_CODE.test(String(code)) || AWAY_MESSAGE.test(message)
}

/** In a sentence, why the database cannot be used now. */
export function outage({ message, code }: ErrorFacts): string {
  return /^The database /.test(message) ? message : `The database does not answer (${message || code}).`
}

/** Does something with the database, and waits while that is away. */
export type WhenReachable = <Value>(work: () => Promise<Value>) => Promise<Value>

/** How to wait. */
export interface Waiting {
  /** Says that the database is away, and that it is back. */
  readonly tell: (line: string) => void
  /** What can be done about it from here. */
  readonly revive: () => Promise<void>
  /** Ends the wait, with its reason. */
  readonly signal: AbortSignal
  readonly atMostMs: number
}

const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 2_000

/**
 * Makes a function that does things with the database again for as long as it is away. What it does has to be
 * idempotent. A connection that was merely cut is not worth a word; an outage is told once, whoever meets it.
 */
export function whileAway({ tell, revive, signal, atMostMs }: Waiting): WhenReachable {
  let told = false
  const back = () => {
    if (told) tell('The database answers again.')
    told = false
  }
  return async (work) => {
    const deadline = performance.now() + atMostMs
    for (let failures = 0; ; failures++) {
      signal.throwIfAborted()
      try {
        const value = await unlessAborted(work(), signal)
        if (failures > 1) back()
        return value
      } catch (error) {
        if (signal.aborted || !isAway(error) || performance.now() > deadline) throw error
        if (failures > 0 && !told) {
          told = true
          tell(`${outage(error)} Waiting for it for up to ${Math.round(atMostMs / 1_000)} s.`)
        }
        if (failures > 0) await revive()
        await delay(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures), undefined, { signal }).catch(
          () => {},
        )
      }
    }
  }
}

async function unlessAborted<Value>(work: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
    work.catch(() => {})
    aborted.promise.catch(() => {})
  }
}
