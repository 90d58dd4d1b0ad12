import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json, text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'

/** What the server does with a call. `hold` answers when it is released, and hangs for ever if it never is. */
export type Behaviour =
  | {
      kind: 'answer'
      observations?: unknown[]
      text?: string
      finishReason?: 'stop' | 'length' | 'content_filter'
      delayMs?: number
    }
  | { kind: 'status'; status: number; headers?: Record<string, string>; body?: string }
  | { kind: 'body'; body: string }
  | { kind: 'hold' }
  | { kind: 'cut'; when: 'before headers' | 'in the body' }

/** The first rule that fits a call decides, until it has been used `times` times. Without any the call is answered. */
export interface Rule {
  behaviour: Behaviour
  times?: number
  imageHash?: string
  idempotencyKey?: string
}

/** A call as it arrived. `imageHash` is of the bytes that were sent, which are not those of the original file. */
export interface RecordedCall {
  number: number
  protocol: 'openai' | 'anthropic'
  model: string
  idempotencyKey: string | null
  imageHash: string | null
  authorization: string | null
  structured: boolean
}

export interface CallLog {
  calls: RecordedCall[]
  inFlight: number
  peakInFlight: number
}

/** The server as tests see it, in this process or in another: what it counts outlives the process that calls it. */
export interface ModelServer {
  /** Base URL for OpenAI's and Anthropic's protocols alike, ending in /v1. */
  readonly url: string
  /** All calls so far, as soon as there are at least so many. */
  calls(atLeast?: number): Promise<CallLog>
  /** Replaces the rules. */
  behave(...rules: Rule[]): Promise<void>
  /** Lets all calls that are held be answered, and those that will be, until the next rules. */
  release(): Promise<void>
  stop(): Promise<void>
}

/** Starts the server in this process. */
export async function startModelServer(port = 0): Promise<ModelServer> {
  const state = new State()
  const server = createServer((request, response) => {
    const handled = request.url?.startsWith('/control/')
      ? control(state, request, response)
      : serve(state, request, response)
    handled.catch((error) => response.destroy(error))
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const stop = async () => {
    const closed = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await closed
  }
  return { ...controlsOf(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), stop }
}

/** The controls of a server that runs anywhere, by its control endpoint. */
export function controlsOf(origin: string): Omit<ModelServer, 'stop'> {
  const ask = async (method: string, path: string, body?: unknown) => {
    const response = await fetch(`${origin}/control/${path}`, {
      method,
      body: body === undefined ? null : JSON.stringify(body),
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return response
  }
  return {
    url: `${origin}/v1`,
    calls: async (atLeast = 0) => (await (await ask('GET', `calls?atLeast=${atLeast}`)).json()) as CallLog,
    behave: async (...rules) => void (await ask('PUT', 'behaviour', rules)),
    release: async () => void (await ask('POST', 'release')),
  }
}

class State {
  readonly calls: RecordedCall[] = []
  rules: Rule[] = []
  inFlight = 0
  peakInFlight = 0
  #released = false
  #held: (() => void)[] = []
  #watchers: (() => void)[] = []

  arrived(call: RecordedCall): void {
    this.calls.push(call)
    this.inFlight++
    this.peakInFlight = Math.max(this.peakInFlight, this.inFlight)
    for (const look of this.#watchers.splice(0)) look()
  }

  async atLeast(count: number): Promise<CallLog> {
    while (this.calls.length < count) await new Promise<void>((resolve) => this.#watchers.push(resolve))
    const { calls, inFlight, peakInFlight } = this
    return { calls, inFlight, peakInFlight }
  }

  follow(rules: Rule[]): void {
    this.rules = rules
    this.#released = false
  }

  release(): void {
    this.#released = true
    for (const goOn of this.#held.splice(0)) goOn()
  }

  async hold(): Promise<void> {
    if (!this.#released) await new Promise<void>((resolve) => this.#held.push(resolve))
  }

  behaviourFor(call: RecordedCall): Behaviour {
    const rule = this.rules.find(
      ({ times = 1, imageHash = call.imageHash, idempotencyKey = call.idempotencyKey }) =>
        times > 0 && imageHash === call.imageHash && idempotencyKey === call.idempotencyKey,
    )
    if (rule?.times !== undefined) rule.times--
    return rule?.behaviour ?? { kind: 'answer' }
  }
}

async function control(state: State, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost')
  const route = `${request.method} ${url.pathname.slice('/control/'.length)}`
  let reply: unknown = null
  if (route === 'GET calls') reply = await state.atLeast(Number(url.searchParams.get('atLeast')))
  else if (route === 'PUT behaviour') state.follow((await json(request)) as Rule[])
  else if (route === 'POST release') state.release()
  else response.statusCode = 404
  response.setHeader('content-type', 'application/json').end(JSON.stringify(reply))
}

async function serve(state: State, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request)
  const call = record(state.calls.length + 1, request, JSON.parse(body))
  state.arrived(call)
  response.once('close', () => state.inFlight--)
  const behaviour = state.behaviourFor(call)
  if (behaviour.kind === 'answer' && behaviour.delayMs) await delay(behaviour.delayMs)
  if (behaviour.kind === 'hold') await state.hold()
  if (behaviour.kind === 'cut') return cut(response, behaviour.when)
  if (behaviour.kind === 'status') {
    response.writeHead(behaviour.status, { 'content-type': 'application/json', ...behaviour.headers })
    const error = { type: 'test', message: `told to answer ${behaviour.status}` }
    response.end(behaviour.body ?? JSON.stringify({ type: 'error', error }))
    return
  }
  const told = behaviour.kind === 'answer' ? behaviour : { kind: 'answer' as const }
  const sent = behaviour.kind === 'body' ? behaviour.body : JSON.stringify(answer(call, told))
  response.setHeader('content-type', 'application/json').end(sent)
}

function cut(response: ServerResponse, when: 'before headers' | 'in the body'): void {
  if (when === 'before headers') response.destroy()
  else {
    response.writeHead(200, { 'content-type': 'application/json', 'content-length': 1_000 })
    response.write('{"id": "half an', () => response.destroy())
  }
}

interface Body {
  model?: string
  messages?: { content: string | Part[] }[]
  response_format?: { type: string }
  output_format?: { type: string }
  output_config?: { format?: { type: string } }
}

interface Part {
  type: string
  image_url?: { url: string }
  source?: { data?: string }
}

function record(number: number, request: IncomingMessage, body: Body): RecordedCall {
  const parts = (body.messages ?? []).flatMap(({ content }) => (typeof content === 'string' ? [] : content))
  const image = parts
    .map((part) => part.image_url?.url.split(',')[1] ?? part.source?.data)
    .find((data) => data !== undefined)
  const format = body.response_format ?? body.output_format ?? body.output_config?.format
  return {
    number,
    protocol: request.url?.endsWith('/messages') ? 'anthropic' : 'openai',
    model: body.model ?? '',
    idempotencyKey: request.headers['idempotency-key']?.toString() ?? null,
    imageHash:
      image === undefined ? null : createHash('sha256').update(Buffer.from(image, 'base64')).digest('hex'),
    authorization: request.headers.authorization ?? request.headers['x-api-key']?.toString() ?? null,
    structured: format?.type === 'json_schema',
  }
}

/** Unless told otherwise it names the call, so that a stored answer tells which call it came from. */
function answer(call: RecordedCall, told: Extract<Behaviour, { kind: 'answer' }>): object {
  const usual = [{ label: 'thing', confidence: 0.9, text: `call ${call.number}`, box: null }]
  const said = told.text ?? JSON.stringify({ observations: told.observations ?? usual })
  const finish = told.finishReason ?? 'stop'
  const { model } = call
  if (call.protocol === 'anthropic') {
    const content = [{ type: 'text', text: said }]
    const stop_reason = { stop: 'end_turn', length: 'max_tokens', content_filter: 'refusal' }[finish]
    const usage = { input_tokens: 100, output_tokens: 20 }
    return {
      id: `msg_${call.number}`,
      type: 'message',
      role: 'assistant',
      model,
      content,
      stop_reason,
      usage,
    }
  }
  const choices = [{ index: 0, message: { role: 'assistant', content: said }, finish_reason: finish }]
  const usage = { prompt_tokens: 100, completion_tokens: 20, total_tokens: 120 }
  return {
    id: `chatcmpl-${call.number}`,
    object: 'chat.completion',
    created: 1_700_000_000,
    model,
    choices,
    usage,
  }
}
