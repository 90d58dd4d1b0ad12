import { once } from 'node:events'
import { realpathSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Behaviour } from './api-behaviour.ts'
import { ApiHandler } from './api-handler.ts'
import { CallBook, type CallRecord, type Scope } from './call-book.ts'

export { type Behaviour, oddAnswer } from './api-behaviour.ts'
export type { CallRecord, Scope } from './call-book.ts'
export { connectCountingApi, type RemoteCountingApi } from './counting-api-client.ts'

export interface Hold {
  /** A call is waiting. */
  readonly arrived: Promise<void>
  /** Answers the calls that wait, in the given way (`{ kind: 'answer' }`), and holds no further ones. */
  release(behaviour?: Behaviour): void | Promise<void>
}

/**
 * The paid API: `POST {url}/call` with `{ "key": ... }` and an `Idempotency-Key` header. It keeps no answers: each call
 * costs. What is a value in process is a promise from another process, so `await` reads both.
 */
export interface CountingApi {
  readonly url: string
  /** Calls made, answered or not. */
  readonly calls: number | Promise<number>
  /** Calls whose caller went away before the answer. */
  readonly aborted: number | Promise<number>
  readonly log: readonly CallRecord[] | Promise<readonly CallRecord[]>
  callsFor(key: string): number | Promise<number>
  /** Replaces the behaviour of its scope. Used up, all keys' behaviour applies, and else an answer at once. */
  behave(behaviour: Behaviour, scope?: Scope): void | Promise<void>
  /** Holds the calls of a key, or all, until they are released. */
  hold(key?: string): Hold | Promise<Hold>
  /** Forgets calls and behaviours. */
  reset(): void | Promise<void>
  close(): Promise<void>
}

export interface LocalCountingApi extends CountingApi {
  readonly calls: number
  readonly aborted: number
  readonly log: readonly CallRecord[]
  callsFor(key: string): number
  behave(behaviour: Behaviour, scope?: Scope): void
  hold(key?: string): Hold
  reset(): void
}

export async function startCountingApi(): Promise<LocalCountingApi> {
  const book = new CallBook()
  const handler = new ApiHandler(book)
  const server = createServer((request, response) => handler.handle(request, response))
  // An idle connection that closes just as its client uses it again would be a fault that no test asked for.
  server.keepAliveTimeout = 0
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    get calls() {
      return book.log.length
    },
    get aborted() {
      return book.aborted
    },
    get log() {
      return book.log
    },
    callsFor: (key) => book.callsFor(key),
    behave: (behaviour, scope) => book.behave(behaviour, scope),
    hold: (key) => book.hold(key),
    reset: () => book.reset(),
    async close() {
      if (!server.listening) return
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    },
  }
}

async function main(): Promise<void> {
  const { url } = await startCountingApi()
  process.stdout.write(`${JSON.stringify({ url })}\n`)
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) await main()
