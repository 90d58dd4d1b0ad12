import { APICallError, InvalidResponseDataError, NoSuchModelError } from '@ai-sdk/provider'
import { NoObjectGeneratedError } from 'ai'
import { describe, expect, test } from 'vitest'
import { ImageError } from '../../src/images.ts'
import { AnswerError } from '../../src/models/answer.ts'
import { DetectorError } from '../../src/models/detector/detector.ts'
import { classifyFailure } from '../../src/models/failures.ts'
import { ObjectStoreError } from '../../src/object-store.ts'

function http(
  statusCode: number | undefined,
  message = 'no',
  headers: Record<string, string> = {},
  responseBody?: string,
): APICallError {
  const url = 'https://api.example.com/v1/chat?key=hunter2'
  const status = statusCode === undefined ? {} : { statusCode }
  const body = responseBody === undefined ? {} : { responseBody }
  return new APICallError({
    message,
    url,
    requestBodyValues: { secret: 'hunter2' },
    responseHeaders: headers,
    ...status,
    ...body,
  })
}

describe('a failure of the model server', () => {
  test.each([
    [400, 'permanent', 'MODEL_REQUEST_REFUSED'],
    [401, 'permanent', 'MODEL_KEY_REFUSED'],
    [402, 'permanent', 'MODEL_REQUEST_REFUSED'],
    [403, 'permanent', 'MODEL_KEY_REFUSED'],
    [404, 'permanent', 'MODEL_NOT_FOUND'],
    [408, 'transient', 'MODEL_SERVER_ERROR'],
    [413, 'permanent', 'MODEL_REQUEST_REFUSED'],
    [422, 'permanent', 'MODEL_REQUEST_REFUSED'],
    [429, 'rate-limited', 'MODEL_RATE_LIMITED'],
    [500, 'transient', 'MODEL_SERVER_ERROR'],
    [503, 'transient', 'MODEL_SERVER_ERROR'],
    [529, 'transient', 'MODEL_SERVER_ERROR'],
    [undefined, 'transient', 'MODEL_UNREACHABLE'],
  ])('%s is %s', (status, kind, code) => {
    expect(classifyFailure(http(status))).toMatchObject({ kind, code })
  })

  const now = Date.parse('2025-01-01T00:00:00Z')
  test.each([
    [429, { 'retry-after': '7' }, 7_000],
    [429, { 'retry-after': '1.5' }, 1_500],
    [429, { 'retry-after': '0' }, 1_000],
    [429, { 'retry-after': '-5' }, 1_000],
    [429, { 'retry-after-ms': '20' }, 1_000],
    [429, { 'retry-after': 'Wed, 01 Jan 2025 00:00:30 GMT' }, 30_000],
    [429, { 'retry-after': 'Wed, 01 Jan 2020 00:00:30 GMT' }, 1_000],
    [429, { 'retry-after': '7', 'retry-after-ms': '6500' }, 6_500],
    [429, { 'retry-after': 'soon' }, null],
    [429, {}, null],
    [429, { 'retry-after': '999999999' }, 3_600_000],
    [503, { 'retry-after': '2' }, 2_000],
  ])('%s with %j is to be tried after %s ms', (status, headers, delayMs) => {
    expect(classifyFailure(http(status, 'slow down', headers), undefined, now)).toMatchObject({
      kind: 'rate-limited',
      delayMs,
    })
  })

  test('an empty account is no rate limit, for waiting does not fill it', () => {
    const error = http(
      429,
      'You exceeded your current quota',
      { 'retry-after': '1' },
      '{"error":{"code":"insufficient_quota"}}',
    )
    expect(classifyFailure(error)).toMatchObject({ kind: 'transient', code: 'MODEL_QUOTA_USED_UP' })
  })

  test('a success that cannot be read is a bad answer, with its text; without a body the line was cut', () => {
    expect(classifyFailure(http(200, 'Invalid JSON', {}, ''))).toMatchObject({
      kind: 'bad-answer',
      code: 'ANSWER_EMPTY',
    })
    expect(classifyFailure(http(200, 'Invalid JSON', {}, '<html>'.repeat(9_999)))).toMatchObject({
      kind: 'bad-answer',
      code: 'ANSWER_NOT_JSON',
      text: expect.stringMatching(/^(<html>|<html?){1,700}$/),
    })
    expect(classifyFailure(http(200, 'Failed to process successful response'))).toMatchObject({
      kind: 'transient',
      code: 'MODEL_UNREACHABLE',
    })
  })

  test('messages are bounded and hold no secrets', () => {
    const said = [
      'Incorrect key sk-proj-hunter2hunter2, see https://user:hunter2@api.example.com/help?key=hunter2#hunter2',
      'Authorization: Bearer hunter2 abcdefgh1234567890hunter2abcdefgh',
      'x'.repeat(5_000),
    ].join(' ')
    for (const status of [400, 401, 404, 429, 500, undefined]) {
      const { message } = classifyFailure(http(status, said))
      expect(message).not.toContain('hunter2')
      expect(message.length).toBeLessThan(500)
    }
    expect(
      classifyFailure(http(400, 'image too large, see https://docs.example.com/limits')).message,
    ).toContain('image too large, see https://docs.example.com/limits')
  })
})

test('what it says can be stored in Postgres, whatever the server sends', () => {
  const odd = `\0 and \ud83d${'😀'.repeat(9_999)}`
  for (const error of [
    http(400, odd),
    http(undefined, odd),
    http(200, 'Invalid JSON', {}, odd),
    new Error(odd),
  ]) {
    const failure = JSON.stringify(classifyFailure(error))
    expect(failure).not.toMatch(/\\u0000|\\ud8/)
    expect(failure).toContain('\uFFFD and \uFFFD')
  }
})

describe('other failures', () => {
  const response = { id: '1', timestamp: new Date(0), modelId: 'm' }
  const usage = { inputTokens: 5, outputTokens: 6 } as NoObjectGeneratedError['usage'] & object
  test.each([
    [
      new ImageError('IMAGE_CORRUPT', 'damaged'),
      { kind: 'permanent', code: 'IMAGE_CORRUPT', message: 'damaged' },
    ],
    [
      new ObjectStoreError('OBJECT_MISSING', 'gone'),
      { kind: 'permanent', code: 'OBJECT_MISSING', message: 'gone' },
    ],
    [new ObjectStoreError('STORE_UNAVAILABLE', 'away'), { kind: 'transient', code: 'STORE_UNAVAILABLE' }],
    [new AnswerError('ANSWER_NOT_JSON', 'garbage'), { kind: 'bad-answer', code: 'ANSWER_NOT_JSON' }],
    [new AnswerError('ANSWER_REFUSED', 'policy'), { kind: 'permanent', code: 'ANSWER_REFUSED' }],
    [new DetectorError('stopped'), { kind: 'transient', code: 'DETECTOR_FAILED', message: 'stopped' }],
    [
      new InvalidResponseDataError({ data: {}, message: 'no choices' }),
      { kind: 'bad-answer', code: 'ANSWER_INVALID' },
    ],
    [
      new NoSuchModelError({ modelId: 'm', modelType: 'languageModel' }),
      { kind: 'permanent', code: 'MODEL_CALL_INVALID' },
    ],
    [
      new NoObjectGeneratedError({ text: 'garbage', response, usage, finishReason: 'stop' }),
      { kind: 'bad-answer', text: 'garbage', usage: { inputTokens: 5, outputTokens: 6 } },
    ],
    [new DOMException('late', 'TimeoutError'), { kind: 'transient', message: 'late' }],
    ['a string', { kind: 'transient', code: 'UNEXPECTED', message: 'a string' }],
  ])('%s', (error, failure) => {
    expect(classifyFailure(error)).toMatchObject(failure)
  })

  test('whatever is thrown after the signal has aborted is an abort', () => {
    const signal = AbortSignal.abort(new Error('timeout of 150s'))
    expect(classifyFailure(http(500), signal)).toEqual({
      kind: 'aborted',
      code: 'ABORTED',
      message: 'The call was aborted: timeout of 150s',
    })
    expect(classifyFailure(new Error('x'), new AbortController().signal).kind).toBe('transient')
  })
})
