import type { ServerResponse } from 'node:http'

/** How the API treats a call. All of them count it. */
export type Behaviour =
  | { readonly kind: 'answer'; readonly answer?: unknown; readonly afterMs?: number }
  /** 429; seconds or an HTTP date. */
  | { readonly kind: 'rate-limited'; readonly retryAfter: number | string }
  | { readonly kind: 'error'; readonly status?: number }
  /** 200, and a body that is no JSON. */
  | { readonly kind: 'garbage' }
  /** 200, and no body. */
  | { readonly kind: 'empty' }
  /** Never answered. */
  | { readonly kind: 'hang' }
  /** The connection ends before the answer starts. */
  | { readonly kind: 'cut' }
  /** The connection ends in the middle of the answer. */
  | { readonly kind: 'cut-body' }
  /** Valid JSON with what `jsonb` and `text` refuse: `\u0000` and lone surrogates. */
  | { readonly kind: 'odd-characters' }

export const oddAnswer = 'nul \u0000, high \ud800, low \udfff, end'

export interface Reply {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string
}

function json(status: number, value: unknown, headers: Record<string, string> = {}): Reply {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) }
}

/** The reply to a call; none to one that hangs. */
export function replyOf(behaviour: Behaviour, key: string): Reply | undefined {
  const answer = { answer: `answer to ${key}` }
  switch (behaviour.kind) {
    case 'answer':
      return json(200, 'answer' in behaviour ? { answer: behaviour.answer } : answer)
    case 'odd-characters':
      return json(200, { answer: oddAnswer })
    case 'rate-limited':
      return json(429, { error: 'too many requests' }, { 'retry-after': String(behaviour.retryAfter) })
    case 'error':
      return json(behaviour.status ?? 500, { error: 'internal error' })
    case 'garbage':
      return { ...json(200, answer), body: '<html>upstream said hello' }
    case 'empty':
      return { ...json(200, answer), body: '' }
    case 'cut':
    case 'cut-body':
      return json(200, answer)
    case 'hang':
      return undefined
  }
}

export function send(response: ServerResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, { ...headers, 'content-length': String(Buffer.byteLength(body)) })
  response.end(body)
}

/** Sends a reply's headers and half of its body. */
export function sendHalf(response: ServerResponse, { status, headers, body }: Reply): void {
  response.writeHead(status, { ...headers, 'content-length': String(Buffer.byteLength(body)) })
  response.write(body.slice(0, body.length / 2), () => response.destroy())
}
