import { subscribe } from 'node:diagnostics_channel'
import type { ClientHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import { Place } from './place.ts'

/** Something that left the process, or is about to. */
export interface Call {
  kind: 'request' | 'socket' | 'process'
  /** Method and host, or what else tells it apart: never a path, a query or an argument, which may hold secrets. */
  name(): string
  /** `host` or `host:port`, where it is known. */
  host(): string | undefined
  place: Place
}

interface Tap {
  /** The channel of node:diagnostics_channel; it publishes in the caller's context, before the call has left. */
  channel: string
  call(message: never): Pick<Call, 'kind' | 'name' | 'host'> | undefined
}

interface UndiciMessage {
  request: { origin?: string | URL; method?: string }
}
interface HttpMessage {
  request: { method: string; host: string; getHeader(name: string): unknown }
}
interface Http2Message {
  headers: Record<string, unknown>
  stream: ClientHttp2Stream
}
interface ProcessMessage {
  process: { spawnfile?: string | null }
}

/** Not among them: `http.client.request.start`, which publishes outside of the caller's context. */
const TAPS: readonly Tap[] = [
  {
    channel: 'undici:request:create', // fetch, WebSocket, EventSource, undici
    call: ({ request }: UndiciMessage) => httpCall(request.method, () => hostOf(request.origin)),
  },
  {
    channel: 'http.client.request.created', // node:http, node:https
    call: ({ request }: HttpMessage) =>
      httpCall(request.method, () => request.getHeader('host') ?? request.host),
  },
  {
    channel: 'http2.client.stream.created',
    call: ({ headers, stream }: Http2Message) =>
      // Before Node 24 the headers are what the caller has given, which may be only a path.
      httpCall(headers[':method'], () => headers[':authority'] ?? stream.sentHeaders?.[':authority']),
  },
  { channel: 'net.client.socket', call: ({ socket }: { socket: Socket }) => connection(socket) },
  {
    channel: 'udp.socket',
    call: () => ({ kind: 'socket', name: () => 'a UDP socket', host: () => undefined }),
  },
  {
    channel: 'child_process',
    call: ({ process }: ProcessMessage) => ({
      kind: 'process',
      name: () => `the program ${process.spawnfile?.split(/[\\/]/).at(-1) ?? '(unnamed)'}`,
      host: () => undefined,
    }),
  },
]

/** Connections to a database are opened by its pool, for whoever comes next. */
const DATABASE_CLIENTS = /[\\/]node_modules[\\/](pg|pg-pool|postgres)[\\/]/

let tapped = false

/**
 * Listens, from now on and once per process, to everything that leaves it.
 *
 * @param wanted asked first, and cheap: whether anybody wants to know of a call that is made right here.
 * @param heard told of each call, in the context of its caller.
 */
export function tap(wanted: () => boolean, heard: (call: Call) => void): void {
  if (tapped) return
  tapped = true
  for (const { channel, call } of TAPS) {
    const listener = (message: unknown): void => {
      if (!wanted()) return
      // An error in a subscriber would end the process.
      try {
        const seen = call(message as never)
        const place = new Place(listener)
        if (seen && !(channel === 'net.client.socket' && place.passes(DATABASE_CLIENTS)))
          heard({ ...seen, place })
      } catch (error) {
        process.emitWarning(`the guard could not read ${channel}: ${String(error)}`)
      }
    }
    subscribe(channel, listener)
  }
}

function httpCall(method: unknown, given: () => unknown): Pick<Call, 'kind' | 'name' | 'host'> {
  const host = () => {
    const known = given()
    return typeof known === 'string' ? known : undefined
  }
  return { kind: 'request', name: () => `${method ?? 'GET'} ${host() ?? 'a server'}`, host }
}

/** Where a socket goes is known only after the channel has published it. */
function connection(socket: Socket): Pick<Call, 'kind' | 'name' | 'host'> {
  let [host, port]: [string?, number?] = []
  socket.once('lookup', (_error, _address, _family, name) => {
    host = name
  })
  socket.once('connectionAttempt', (address, at) => {
    host ??= address
    port = at
  })
  const target = () => (host !== undefined && port !== undefined ? `${host}:${port}` : host)
  return { kind: 'socket', name: () => `a connection to ${target() ?? 'somewhere'}`, host: target }
}

function hostOf(origin: string | URL | undefined): string | undefined {
  return URL.canParse(String(origin)) ? new URL(String(origin)).host : undefined
}
