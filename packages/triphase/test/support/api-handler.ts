import type { IncomingMessage, ServerResponse } from 'node:http'
import { json } from 'node:stream/consumers'
import { type Behaviour, replyOf, send, sendHalf } from './api-behaviour.ts'
import type { CallBook, HeldCalls, Scope } from './call-book.ts'

type Route = (request: IncomingMessage, response: ServerResponse, url: URL) => void | Promise<void>

/**
 * The API's one paid endpoint, and the endpoints by which another process controls it:
 * `GET /calls` and `GET /calls?key=` answer `{ calls, aborted, log }`; `POST /behaviour` takes `{ behaviour, key?, times? }`,
 * and answers `{ hold }` if the behaviour is `{ kind: 'hold' }`; `GET /arrived?hold=` answers when a call waits there;
 * `POST /release` takes `{ hold, behaviour? }`; `POST /reset` forgets all.
 */
export class ApiHandler {
  readonly #book: CallBook
  readonly #holds = new Map<string, HeldCalls>()
  readonly #routes: Record<string, Route> = {
    'POST /call': (request, response) => this.#call(request, response),
    'GET /calls': (_, response, url) => this.#calls(response, url),
    'POST /behaviour': (request, response) => this.#behaviour(request, response),
    'GET /arrived': (_, response, url) => this.#arrived(response, url),
    'POST /release': (request, response) => this.#release(request, response),
    'POST /reset': (_, response) => {
      this.#book.reset()
      reply(response, 200, {})
    },
  }

  constructor(book: CallBook) {
    this.#book = book
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost')
    const name = `${request.method} ${url.pathname}`
    try {
      const route = this.#routes[name]
      if (!route) throw new Error(`there is no ${name}`)
      await route(request, response, url)
    } catch (error) {
      if (!response.headersSent) reply(response, 400, { error: String(error) })
    }
  }

  async #call(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { key } = (await json(request)) as { key?: unknown }
    if (typeof key !== 'string') throw new Error('the body has no "key"')
    const idempotencyKey = request.headers['idempotency-key']
    const call = this.#book.record(key, idempotencyKey?.toString())
    if (response.closed) call.outcome = 'aborted'
    response.on('close', () => {
      if (call.outcome === 'pending') call.outcome = 'aborted'
    })
    const taken = this.#book.take(key)
    if ('arrive' in taken) taken.arrive()
    const behaviour = 'arrive' in taken ? await taken.released : taken
    if (behaviour.kind === 'answer' && behaviour.afterMs) await delay(behaviour.afterMs, response)
    if (call.outcome === 'aborted') return
    call.outcome = answer(response, behaviour, key)
  }

  #calls(response: ServerResponse, url: URL): void {
    const key = url.searchParams.get('key')
    const log = this.#book.log.filter((call) => key === null || call.key === key)
    const aborted = log.filter((call) => call.outcome === 'aborted').length
    reply(response, 200, { calls: log.length, aborted, log })
  }

  async #behaviour(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { behaviour, ...scope } = (await json(request)) as {
      behaviour: Behaviour | { kind: 'hold' }
    } & Scope
    if (behaviour.kind !== 'hold') {
      this.#book.behave(behaviour, scope)
      reply(response, 200, {})
      return
    }
    const hold = String(this.#holds.size + 1)
    this.#holds.set(hold, this.#book.hold(scope.key))
    reply(response, 200, { hold })
  }

  async #arrived(response: ServerResponse, url: URL): Promise<void> {
    await this.#held(url.searchParams.get('hold')).arrived
    reply(response, 200, {})
  }

  async #release(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { hold, behaviour } = (await json(request)) as { hold: string; behaviour?: Behaviour }
    this.#held(hold).release(behaviour)
    reply(response, 200, {})
  }

  #held(hold: string | null): HeldCalls {
    const held = this.#holds.get(hold ?? '')
    if (!held) throw new Error(`there is no hold ${hold}`)
    return held
  }
}

function answer(response: ServerResponse, behaviour: Behaviour, key: string): 'pending' | 'answered' | 'cut' {
  const result = replyOf(behaviour, key)
  if (!result) return 'pending'
  if (behaviour.kind === 'cut') response.destroy()
  else if (behaviour.kind === 'cut-body') sendHalf(response, result)
  else send(response, result)
  return behaviour.kind === 'cut' || behaviour.kind === 'cut-body' ? 'cut' : 'answered'
}

function delay(ms: number, response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    response.on('close', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

function reply(response: ServerResponse, status: number, value: unknown): void {
  send(response, { status, headers: { 'content-type': 'application/json' }, body: JSON.stringify(value) })
}
