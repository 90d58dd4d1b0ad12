import { readFile } from 'node:fs/promises'
import { inspect } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { contentHash, prepareForModel } from '../../src/images.ts'
import { parseAnswer } from '../../src/models/answer.ts'
import { callModel, type ModelCall, type RawAnswer } from '../../src/models/call.ts'
import { classifyFailure, type Failure } from '../../src/models/failures.ts'
import { resolveModel, type VisionModel } from '../../src/models/resolve.ts'
import { samplePhotos } from '../../src/samples.ts'
import { type ModelChoice, Secret } from '../../src/settings.ts'
import { type Behaviour, type ModelServer, startModelServer } from '../support/model-server.ts'

let server: ModelServer
let image: Buffer
let seen = 0
beforeAll(async () => {
  server = await startModelServer()
  image = await readFile(samplePhotos()[6]!.file)
})
afterAll(() => server.stop())
afterEach(async () => {
  await server.behave()
  seen = (await server.calls()).calls.length
})

const key = new Secret('sk-test-hunter2')
const choices: Record<string, (url: string) => ModelChoice> = {
  openai: (url) => ({ provider: 'openai', model: 'gpt-4o', url, key }),
  anthropic: (url) => ({ provider: 'anthropic', model: 'claude-sonnet-4-5', url, key }),
  compatible: (url) => ({ provider: 'compatible', model: 'llava', url, key }),
}

function call(over: Partial<ModelCall> = {}): ModelCall {
  return {
    image,
    profile: { prompt: 'What is there?' },
    signal: new AbortController().signal,
    idempotencyKey: 'job-1',
    ...over,
  }
}

async function failureOf(model: VisionModel, over: Partial<ModelCall> = {}): Promise<Failure | RawAnswer> {
  return await callModel(model, call(over)).catch((error) => classifyFailure(error, over.signal))
}

describe.each(Object.keys(choices))('a call through the real provider: %s', (provider) => {
  const model = () => resolveModel(choices[provider]!(server.url))
  const newCalls = async () => (await server.calls()).calls.slice(seen)

  test('asks once, for the schema, with the prepared image, the key and the idempotency key', async () => {
    const raw = await callModel(model(), call({ idempotencyKey: 'job-7/1' }))
    const calls = await newCalls()
    expect(calls).toMatchObject([
      {
        idempotencyKey: 'job-7/1',
        structured: true,
        imageHash: contentHash((await prepareForModel(image)).bytes),
      },
    ])
    expect(calls[0]?.authorization).toContain('sk-test-hunter2')
    expect(raw).toEqual({
      text: expect.stringContaining('observations'),
      model: `${provider}:${calls[0]?.model}`,
      finishReason: 'stop',
      usage: { inputTokens: 100, outputTokens: 20 },
    })
    expect(JSON.parse(JSON.stringify(raw))).toEqual(raw)
    expect(parseAnswer(raw)).toMatchObject([{ label: 'thing', text: `call ${calls[0]?.number}` }])
  })

  test('gives back garbage as it came, and reading it is a bad answer', async () => {
    await server.behave({ behaviour: { kind: 'answer', text: 'A cat, I think.' } })
    const raw = await callModel(model(), call())
    expect(raw).toMatchObject({ text: 'A cat, I think.', usage: { inputTokens: 100 } })
    expect(() => parseAnswer(raw)).toThrow(expect.objectContaining({ code: 'ANSWER_NOT_JSON' }))
  })

  test('gives back an empty and a refused answer, whatever the model stopped for', async () => {
    await server.behave(
      { behaviour: { kind: 'answer', text: '', finishReason: 'length' }, times: 1 },
      { behaviour: { kind: 'answer', text: 'No.', finishReason: 'content_filter' } },
    )
    const empty = await callModel(model(), call())
    expect(() => parseAnswer(empty)).toThrow(expect.objectContaining({ code: 'ANSWER_EMPTY' }))
    const refused = await callModel(model(), call())
    expect(refused.finishReason).toBe('content-filter')
    expect(() => parseAnswer(refused)).toThrow(expect.objectContaining({ code: 'ANSWER_REFUSED' }))
  })

  test('characters that Postgres cannot hold survive in the raw answer and are cleaned when it is read', async () => {
    await server.behave({
      behaviour: {
        kind: 'answer',
        observations: [{ label: 'c\0t\ud83d', confidence: null, text: null, box: null }],
      },
    })
    const raw = await callModel(model(), call())
    expect(parseAnswer(JSON.parse(JSON.stringify(raw)))).toMatchObject([{ label: 'c\uFFFDt\uFFFD' }])
  })

  test.each<[Behaviour, Partial<Failure>]>([
    [
      { kind: 'status', status: 429, headers: { 'retry-after': '3' } },
      { kind: 'rate-limited', delayMs: 3_000 },
    ],
    [
      { kind: 'status', status: 429 },
      { kind: 'rate-limited', delayMs: null },
    ],
    [
      { kind: 'status', status: 500 },
      { kind: 'transient', code: 'MODEL_SERVER_ERROR' },
    ],
    [{ kind: 'status', status: 502, body: '<html>Bad gateway</html>' }, { kind: 'transient' }],
    [
      { kind: 'status', status: 400 },
      {
        kind: 'permanent',
        code: 'MODEL_REQUEST_REFUSED',
        message: expect.stringContaining('told to answer 400'),
      },
    ],
    [
      { kind: 'status', status: 401 },
      { kind: 'permanent', code: 'MODEL_KEY_REFUSED' },
    ],
    [
      { kind: 'body', body: '' },
      { kind: 'bad-answer', code: 'ANSWER_EMPTY' },
    ],
    [
      { kind: 'body', body: '<html>' },
      { kind: 'bad-answer', text: '<html>' },
    ],
    [{ kind: 'body', body: '{"choices":[],"content":[]}' }, { kind: 'bad-answer' }],
    [
      { kind: 'cut', when: 'before headers' },
      { kind: 'transient', code: 'MODEL_UNREACHABLE' },
    ],
    [
      { kind: 'cut', when: 'in the body' },
      { kind: 'transient', code: 'MODEL_UNREACHABLE' },
    ],
  ])('%j fails after one request', async (behaviour, failure) => {
    await server.behave({ behaviour })
    const failed = await failureOf(model())
    expect(failed).toMatchObject(failure)
    expect(JSON.stringify(failed)).not.toContain('hunter2')
    expect(await newCalls()).toHaveLength(1)
  })

  test('what it throws holds neither the key nor the image, however deep one looks', async () => {
    const body = JSON.stringify({
      type: 'error',
      error: { type: 'x', message: 'Incorrect API key: sk-test-hunter2' },
    })
    for (const status of [401, 500]) {
      await server.behave({ behaviour: { kind: 'status', status, body } })
      const error = await callModel(model(), call()).catch((thrown) => thrown)
      expect(error).toMatchObject({ name: 'ModelCallError', code: expect.stringContaining('MODEL_') })
      const shown = inspect(error, { depth: 20, showHidden: true }) + JSON.stringify(error)
      expect(shown).not.toContain('hunter2')
      expect(shown.length).toBeLessThan(5_000)
    }
  })

  test('a key that looks like a word is not repeated either', async () => {
    const choice = { ...choices[provider]!(server.url), key: new Secret('correcthorse') } as ModelChoice
    const body = JSON.stringify({
      type: 'error',
      error: { type: 'x', message: 'no token correcthorse here' },
    })
    await server.behave({ behaviour: { kind: 'status', status: 500, body } })
    expect(await failureOf(resolveModel(choice))).toMatchObject({
      message: expect.stringContaining('no token [secret] here'),
    })
  })

  test('a server that is away is a passing failure', async () => {
    expect(await failureOf(resolveModel(choices[provider]!('http://127.0.0.1:1/v1')))).toMatchObject({
      kind: 'transient',
      code: 'MODEL_UNREACHABLE',
    })
  })

  test('the signal ends a call that hangs', async () => {
    await server.behave({ behaviour: { kind: 'hold' } })
    const controller = new AbortController()
    const failing = failureOf(model(), { signal: controller.signal })
    await server.calls(seen + 1)
    controller.abort(new Error('timeout of 150s'))
    expect(await failing).toEqual({
      kind: 'aborted',
      code: 'ABORTED',
      message: 'The call was aborted: timeout of 150s',
    })
  })
})

describe('a call', () => {
  test('of bytes that are no image is refused without a request', async () => {
    const model = resolveModel(choices.openai!(server.url))
    expect(await failureOf(model, { image: Buffer.from('text') })).toMatchObject({
      kind: 'permanent',
      code: 'IMAGE_UNKNOWN',
    })
    expect((await server.calls()).calls.slice(seen)).toEqual([])
  })

  test('of the local detector answers like a language model', async () => {
    const model = resolveModel({ provider: 'detector' })
    onTestFinished(() => model.close())
    const boats = await callModel(model, call({ profile: { prompt: 'Any boats?', labels: ['Boat'] } }))
    expect(boats).toMatchObject({ model: 'local:coco-ssd', finishReason: 'stop', usage: null })
    const observations = parseAnswer(JSON.parse(JSON.stringify(boats)))
    expect(new Set(observations.map(({ label }) => label))).toEqual(new Set(['boat']))
    expect(observations[0]).toMatchObject({
      ...{ confidence: expect.any(Number), text: null, box: { x: expect.any(Number) } },
    })
    const cats = await callModel(model, call({ image: await readFile(samplePhotos()[5]!.file) }))
    expect(parseAnswer(cats).map(({ label }) => label)).toContain('cat')
  })
})
