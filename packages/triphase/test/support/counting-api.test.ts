import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  type Behaviour,
  type CountingApi,
  connectCountingApi,
  type LocalCountingApi,
  oddAnswer,
  startCountingApi,
} from './counting-api.ts'
import { eventually, killWorkers, spawnWorker } from './processes.ts'

async function startApart(): Promise<CountingApi> {
  const process = spawnWorker(new URL('./counting-api.ts', import.meta.url))
  const [line] = await process.waitForLine(/^\{.*\}$/)
  return connectCountingApi(JSON.parse(line).url)
}

function call(api: CountingApi, key: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${api.url}/call`, {
    method: 'POST',
    headers: { 'idempotency-key': `idem ${key}` },
    body: JSON.stringify({ key }),
    ...init,
  })
}

afterAll(killWorkers)

describe.each([
  ['in this process', startCountingApi],
  ['in a process of its own', startApart],
] as [string, () => Promise<CountingApi>][])('the API %s', (_, start) => {
  let api: CountingApi
  beforeAll(async () => {
    api = await start()
  })
  beforeEach(() => api.reset())
  afterAll(() => api.close())

  async function answers(behaviour: Behaviour): Promise<{ response: Response; body: string }> {
    await api.behave(behaviour)
    const response = await call(api, 'k')
    return { response, body: await response.text() }
  }

  it('counts calls by key, with their idempotency keys', async () => {
    const response = await call(api, 'a')
    expect(response.status).toBe(200)
    expect(await response.json()).toEqual({ answer: 'answer to a' })
    await call(api, 'b')
    await call(api, 'a')
    expect(await api.calls).toBe(3)
    expect([await api.callsFor('a'), await api.callsFor('b'), await api.callsFor('c')]).toEqual([2, 1, 0])
    expect((await api.log)[1]).toEqual({ key: 'b', idempotencyKey: 'idem b', outcome: 'answered' })
  })

  it('forgets on reset', async () => {
    await api.behave({ kind: 'error' })
    await call(api, 'a')
    await api.reset()
    expect(await api.calls).toBe(0)
    expect((await call(api, 'a')).status).toBe(200)
  })

  it('answers what it is told, after a time', async () => {
    const started = performance.now()
    const { body } = await answers({ kind: 'answer', answer: { text: 'hi' }, afterMs: 50 })
    expect(JSON.parse(body)).toEqual({ answer: { text: 'hi' } })
    expect(performance.now() - started).toBeGreaterThan(45)
  })

  it('fails by status', async () => {
    const limited = await answers({ kind: 'rate-limited', retryAfter: 7 })
    expect([limited.response.status, limited.response.headers.get('retry-after')]).toEqual([429, '7'])
    expect((await answers({ kind: 'error' })).response.status).toBe(500)
    expect((await answers({ kind: 'error', status: 503 })).response.status).toBe(503)
    expect(await api.calls).toBe(3)
  })

  it('answers nonsense', async () => {
    const garbage = await answers({ kind: 'garbage' })
    expect(garbage.response.status).toBe(200)
    expect(() => JSON.parse(garbage.body)).toThrow(SyntaxError)
    expect(await answers({ kind: 'empty' })).toMatchObject({ body: '', response: { status: 200 } })
  })

  it('answers characters that Postgres refuses as text', async () => {
    const { body } = await answers({ kind: 'odd-characters' })
    expect(JSON.parse(body)).toEqual({ answer: oddAnswer })
    expect(oddAnswer).toContain('\0')
    expect(() => encodeURIComponent(oddAnswer)).toThrow('URI malformed')
  })

  it('cuts the connection, before or within the answer', async () => {
    await api.behave({ kind: 'cut' })
    await expect(call(api, 'a')).rejects.toThrow('fetch failed')
    await api.behave({ kind: 'cut-body' })
    const response = await call(api, 'a')
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow()
    expect((await api.log).map(({ outcome }) => outcome)).toEqual(['cut', 'cut'])
    expect(await api.aborted).toBe(0)
  })

  it('behaves for one key, for a number of times', async () => {
    await api.behave({ kind: 'error' })
    await api.behave({ kind: 'rate-limited', retryAfter: 1 }, { key: 'a', times: 2 })
    const statuses: number[] = []
    for (const key of ['a', 'b', 'a', 'a']) statuses.push((await call(api, key)).status)
    expect(statuses).toEqual([429, 500, 429, 500])
  })

  it('holds the calls of a key until they are released', async () => {
    const held = await api.hold('a')
    const calls = [call(api, 'a'), call(api, 'a')]
    await held.arrived
    await eventually(async () => (await api.callsFor('a')) === 2)
    expect((await call(api, 'b')).status).toBe(200)
    expect((await api.log).map(({ outcome }) => outcome)).toEqual(['pending', 'pending', 'answered'])
    await held.release({ kind: 'error' })
    for (const response of await Promise.all(calls)) expect(response.status).toBe(500)
    expect((await call(api, 'a')).status).toBe(200)
  })

  it('holds all', async () => {
    const held = await api.hold()
    const waiting = call(api, 'anything')
    await held.arrived
    await held.release()
    expect(await (await waiting).json()).toEqual({ answer: 'answer to anything' })
  })

  it.each<Behaviour>([{ kind: 'hang' }, { kind: 'answer', afterMs: 60_000 }])(
    'counts a call whose caller gives up: $kind',
    async (behaviour) => {
      await api.behave(behaviour)
      const caller = new AbortController()
      const outcome = expect(call(api, 'a', { signal: caller.signal })).rejects.toThrow(/abort/)
      await eventually(async () => (await api.calls) === 1)
      expect(await api.aborted).toBe(0)
      caller.abort()
      await outcome
      await eventually(async () => (await api.aborted) === 1)
      expect(await api.calls).toBe(1)
    },
  )

  it('counts an aborted call that is released later as aborted', async () => {
    const held = await api.hold('a')
    const caller = new AbortController()
    const outcome = expect(call(api, 'a', { signal: caller.signal })).rejects.toThrow(/abort/)
    await held.arrived
    caller.abort()
    await outcome
    await eventually(async () => (await api.aborted) === 1)
    await held.release()
    expect(await api.log).toMatchObject([{ key: 'a', outcome: 'aborted' }])
  })

  it('refuses what is no call', async () => {
    expect((await call(api, 'a', { body: '{}' })).status).toBe(400)
    expect((await call(api, 'a', { body: 'no json' })).status).toBe(400)
    expect((await fetch(`${api.url}/nothing`)).status).toBe(400)
    expect(await api.calls).toBe(0)
  })
})

describe('a caller that is killed', () => {
  let api: LocalCountingApi
  beforeAll(async () => {
    api = await startCountingApi()
  })
  afterAll(() => api.close())

  it('has made its call, and aborted it', async () => {
    const held = api.hold('fixture')
    const caller = spawnWorker(new URL('./worker.fixture.ts', import.meta.url), { args: ['call', api.url] })
    await held.arrived
    caller.kill('SIGKILL')
    await eventually(() => expect(api.aborted).toBe(1))
    expect(api.callsFor('fixture')).toBe(1)
  })
})
