import type { Behaviour } from './api-behaviour.ts'
import type { CallRecord, Scope } from './call-book.ts'
import type { CountingApi, Hold } from './counting-api.ts'

export interface RemoteHold extends Hold {
  release(behaviour?: Behaviour): Promise<void>
}

export interface RemoteCountingApi extends CountingApi {
  readonly calls: Promise<number>
  readonly aborted: Promise<number>
  readonly log: Promise<readonly CallRecord[]>
  callsFor(key: string): Promise<number>
  behave(behaviour: Behaviour, scope?: Scope): Promise<void>
  /** Resolves when calls are held. */
  hold(key?: string): Promise<RemoteHold>
  reset(): Promise<void>
  /** Does nothing: the process that runs the API ends it. */
  close(): Promise<void>
}

interface Calls {
  readonly calls: number
  readonly aborted: number
  readonly log: readonly CallRecord[]
}

/** A counting API that runs in another process: `node counting-api.ts` prints its URL. */
export function connectCountingApi(url: string): RemoteCountingApi {
  const ask = <Answer>(path: string, body?: unknown) => control<Answer>(new URL(path, url), body)
  return {
    url,
    get calls() {
      return ask<Calls>('/calls').then(({ calls }) => calls)
    },
    get aborted() {
      return ask<Calls>('/calls').then(({ aborted }) => aborted)
    },
    get log() {
      return ask<Calls>('/calls').then(({ log }) => log)
    },
    callsFor: async (key) => (await ask<Calls>(`/calls?key=${encodeURIComponent(key)}`)).calls,
    behave: (behaviour, scope) => ask('/behaviour', { behaviour, ...scope }),
    async hold(key) {
      const { hold } = await ask<{ hold: string }>('/behaviour', { behaviour: { kind: 'hold' }, key })
      const arrived = ask<void>(`/arrived?hold=${hold}`)
      // A test may hold and never look whether the call arrived.
      arrived.catch(() => {})
      return { arrived, release: (behaviour) => ask('/release', { hold, behaviour }) }
    },
    reset: () => ask('/reset', {}),
    close: async () => {},
  }
}

async function control<Answer>(url: URL, body: unknown): Promise<Answer> {
  const post = { method: 'POST', body: JSON.stringify(body) }
  const response = await fetch(url, body === undefined ? {} : post)
  const text = await response.text()
  if (!response.ok) throw new Error(`The counting API refused ${url.pathname}: ${text}`)
  return JSON.parse(text) as Answer
}
