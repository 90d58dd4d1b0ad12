import { describe, expect, test } from 'vitest'
import { parseAnswer, storableText } from '../../src/models/answer.ts'
import type { RawAnswer } from '../../src/models/call.ts'

function answer(text: string, finishReason = 'stop'): RawAnswer {
  return { text, finishReason, model: 'openai:test', usage: null }
}

function observing(...observations: unknown[]): RawAnswer {
  return answer(JSON.stringify({ observations }))
}

describe('reading an answer', () => {
  test('gives observations', () => {
    const box = { x: 0.1, y: 0.2, width: 0.3, height: 0.4 }
    const cat = { label: 'cat', confidence: 0.9, text: 'It sleeps.', box }
    expect(parseAnswer(observing(cat))).toEqual([cat])
    expect(parseAnswer(answer('{"observations": []}'))).toEqual([])
  })

  test('what the model left out is null', () => {
    expect(parseAnswer(observing({ label: ' cat ', text: '' }))).toEqual([
      { label: 'cat', confidence: null, text: null, box: null },
    ])
  })

  test('a Markdown fence around the JSON is taken off', () => {
    expect(parseAnswer(answer('```json\n{"observations": []}\n```\n'))).toEqual([])
  })

  test('a box that ends a little outside of the image ends at its edge', () => {
    const [observation] = parseAnswer(
      observing({ label: 'wall', box: { x: -0.01, y: 0.5, width: 1.01, height: 0.51 } }),
    )
    expect(observation?.box).toEqual({ x: 0, y: 0.5, width: 1, height: 0.5 })
  })

  test.each([
    ['nothing', answer(' \n'), 'ANSWER_EMPTY'],
    ['text', answer('I see a cat.'), 'ANSWER_NOT_JSON'],
    ['half of the JSON, out of tokens', answer('{"observations": [{"la', 'length'), 'ANSWER_TRUNCATED'],
    ['another shape', answer('{"cats": 2}'), 'ANSWER_INVALID'],
    ['null', answer('null'), 'ANSWER_INVALID'],
    ['a label of nothing', observing({ label: ' ' }), 'ANSWER_INVALID'],
    ['a confidence in percent', observing({ label: 'cat', confidence: 90 }), 'ANSWER_INVALID'],
    [
      'a box in pixels',
      observing({ label: 'cat', box: { x: 10, y: 20, width: 300, height: 400 } }),
      'ANSWER_INVALID',
    ],
    ['a label without end', observing({ label: 'cat'.repeat(100) }), 'ANSWER_INVALID'],
    [
      'observations without end',
      observing(...Array.from({ length: 300 }, () => ({ label: 'cat' }))),
      'ANSWER_INVALID',
    ],
    ['a refusal', answer('I cannot help with that.', 'content-filter'), 'ANSWER_REFUSED'],
  ])('%s is an error of its own', (_, raw, code) => {
    expect(() => parseAnswer(raw)).toThrow(expect.objectContaining({ name: 'AnswerError', code }))
  })

  test('the message names what is wrong and does not repeat the answer', () => {
    const read = () => parseAnswer(observing({ label: 'cat' }, { label: 'secret', confidence: 90 }))
    expect(read).toThrow(/openai:test .*observations\.1\.confidence/)
    expect(read).not.toThrow(/secret/)
  })

  test('characters that Postgres cannot hold are replaced', () => {
    const raw = answer(
      '{"observations": [{"label": "c\\u0000t", "text": "half \\ud83d of a \\udc00 pair, whole \\ud83d\\ude00"}]}',
    )
    expect(parseAnswer(raw)).toMatchObject([
      { label: 'c\uFFFDt', text: 'half \uFFFD of a \uFFFD pair, whole 😀' },
    ])
    expect(storableText('\0\0')).toBe('\uFFFD\uFFFD')
  })

  test('an answer is the same after a trip through JSON', () => {
    const raw = answer('{"observations": [{"label": "\0\ud83d"}]}')
    const stored = JSON.parse(JSON.stringify(raw)) as RawAnswer
    expect(stored).toEqual(raw)
  })
})
