import { expect, test } from 'vitest'
import { explain, isAway, withoutSecrets } from '../src/problem.ts'

test.each([
  ['postgres://me:hunter2@db:5432/app', 'postgres://me:***@db:5432/app'],
  ['postgres://me:p%40ss:w@db/app?password=hunter2&x=1', 'postgres://me:***@db/app?password=***&x=1'],
  ['redis://:hunter2@cache', 'redis://:***@cache'],
  ['host=db password=hunter2 user=me', 'host=db password=*** user=me'],
  ['https://api.example/v1?api_key=abc', 'https://api.example/v1?api_key=***'],
  ['postgres://me@db/app at 10:30', 'postgres://me@db/app at 10:30'],
])('%s is told without its secret', (text, told) => {
  expect(withoutSecrets(text)).toBe(told)
})

test('an error of another copy of the engine counts by its code', () => {
  const error = Object.assign(new Error('away'), { code: 'CONNECTION_FAILED' })
  expect(explain(error)).toEqual({ exitCode: 4, code: 'CONNECTION_FAILED', message: 'away' })
  expect(isAway(error)).toBe(true)
  expect(isAway(Object.assign(new Error('no such column'), { code: '42703' }))).toBe(false)
})
