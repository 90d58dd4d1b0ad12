import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import {
  type Fault,
  type FaultHandle,
  type FaultOptions,
  FaultRule,
  type StatementMatch,
} from './fault-rules.ts'
import { FaultSession } from './fault-session.ts'
import type { Unit } from './flights.ts'

export type { Fault, FaultHandle, FaultOptions, StatementMatch } from './fault-rules.ts'

export interface ServerAddress {
  readonly host: string
  readonly port: number
}

export interface FaultProxyOptions extends ServerAddress {
  /** Fill `statements` (false). */
  readonly log?: boolean
}

export interface LoggedStatement {
  readonly sql: string
  readonly applicationName: string
  /** When it reached the proxy, in ms since the epoch. */
  readonly time: number
}

/**
 * Stands between a Postgres client and the server and makes faults happen at exact statements. Sessions through it are not
 * encrypted. A statement is a simple query, or the flight of extended messages up to Sync that binds it (prepared earlier or
 * not); a fault applies to the flight as a whole. What a cursor runs by Flush, without Sync, is passed on unmatched.
 *
 * @example
 * const proxy = await startFaultProxy(serverAddress(url))
 * const client = new pg.Client(proxy.url(url))
 * const lost = proxy.onStatement(/^commit/i, 'cut-after')
 * await expect(saveOrder(client)).rejects.toThrow()
 * await lost.hit // the order is saved, and its client does not know
 */
export interface FaultProxy {
  /** The same URL, through the proxy. */
  url(baseUrl: string): string
  /**
   * Sessions that live, on either side: one whose client died while its statement is held counts until it is released.
   */
  readonly connections: number
  /** Every statement in the order in which they reached the proxy, with `log: true`. */
  readonly statements: readonly LoggedStatement[]
  /** Of several faults for one statement the one registered first applies. */
  onStatement(match: StatementMatch, fault: Fault, options?: FaultOptions): FaultHandle
  /** Destroys both sides of the live connections, or of those whose startup `application_name` matches. */
  cutAll(options?: { readonly applicationName?: RegExp; readonly reset?: boolean }): void
  /** New connections are accepted and destroyed at once. */
  refuse(on: boolean): void
  /** A network outage: nothing passes, nobody is told; new connections are accepted and never answered. */
  freeze(on: boolean): void
  close(): Promise<void>
}

/** Where the server of a connection URL listens. */
export function serverAddress(url: string): ServerAddress {
  const { hostname, port } = new URL(url)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 5432) }
}

export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const server = createServer({ allowHalfOpen: true })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return new ListeningProxy(server, options)
}

class ListeningProxy implements FaultProxy {
  readonly statements: LoggedStatement[] = []
  readonly #server: Server
  readonly #port: number
  readonly #options: FaultProxyOptions
  readonly #sessions = new Set<FaultSession>()
  readonly #rules: FaultRule[] = []
  #refusing = false
  #frozen = false

  constructor(server: Server, options: FaultProxyOptions) {
    this.#server = server
    this.#port = (server.address() as AddressInfo).port
    this.#options = options
    server.on('connection', (client) => this.#accept(client))
  }

  get connections(): number {
    return [...this.#sessions].filter((session) => !session.isCancel).length
  }

  url(baseUrl: string): string {
    const url = new URL(baseUrl)
    url.hostname = '127.0.0.1'
    url.port = String(this.#port)
    return url.href
  }

  onStatement(match: StatementMatch, fault: Fault, options: FaultOptions = {}): FaultHandle {
    const rule = new FaultRule(match, fault, options)
    this.#rules.push(rule)
    return rule
  }

  cutAll({ applicationName, reset = false }: { applicationName?: RegExp; reset?: boolean } = {}): void {
    for (const session of [...this.#sessions]) {
      if (!applicationName || session.applicationName.search(applicationName) !== -1) session.cut(reset)
    }
  }

  refuse(on: boolean): void {
    this.#refusing = on
  }

  freeze(on: boolean): void {
    this.#frozen = on
    for (const session of [...this.#sessions]) session.freeze(on)
  }

  async close(): Promise<void> {
    this.#refusing = true
    this.cutAll()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }

  #accept(client: Socket): void {
    if (this.#refusing) {
      client.on('error', () => {})
      client.destroy()
      return
    }
    const session = new FaultSession(client, {
      server: { host: this.#options.host, port: this.#options.port },
      frozen: this.#frozen,
      choose: (unit, applicationName) => this.#choose(unit, applicationName),
      onClosed: (closed) => this.#sessions.delete(closed),
    })
    this.#sessions.add(session)
  }

  #choose({ statements, last }: Unit, applicationName: string): FaultRule | undefined {
    if (this.#options.log) {
      const time = Date.now()
      this.statements.push(...statements.map((sql) => ({ sql, applicationName, time })))
    }
    if (!last) return undefined
    return this.#rules.find((rule) => rule.take(statements, applicationName))
  }
}
