import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Permanent, RejectedAnswer, RetryAfter, storedError, TriphaseError } from '../src/errors.ts'

function refuse(): never {
  throw new Error('refused')
}

describe('storedError', () => {
  test('keeps name, message, code, stack and the direct cause', () => {
    const cause = Object.assign(new RangeError('inner'), { code: 'E_INNER' })
    const stored = storedError(new TriphaseError('TIMEOUT', 'outer', { cause }))
    expect(stored).toEqual({
      name: 'TriphaseError',
      message: 'outer',
      code: 'TIMEOUT',
      stack: expect.stringContaining('errors.test.ts'),
      cause: { name: 'RangeError', message: 'inner', code: 'E_INNER' },
    })
  })

  test('keeps nothing else that an error carries along', () => {
    const error = Object.assign(new Error('refused'), {
      request: { headers: { authorization: 'Bearer hunter2' } },
      config: { password: 'hunter2' },
    })
    expect(JSON.stringify(storedError(error))).not.toContain('hunter2')
  })

  test('is bounded', () => {
    const error = new Error('m'.repeat(1e6), { cause: new Error('c'.repeat(1e6)) })
    error.stack = 's'.repeat(1e6)
    Object.assign(error, { name: 'n'.repeat(1e6), code: 'E'.repeat(1e6) })
    expect(JSON.stringify(storedError(error)).length).toBeLessThan(20_000)
  })

  test.each(['name', 'message', 'stack', 'code', 'cause'])(
    'keeps the rest where the getter of %s throws',
    (property) => {
      const error = Object.assign(new Error('outer'), { code: 'E_OUTER' })
      Object.defineProperty(error, property, { get: refuse })
      const kept = property === 'message' ? { code: 'E_OUTER' } : { message: 'outer' }
      expect(storedError(error)).toMatchObject(kept)
      expect(storedError(new Error('around', { cause: error })).cause).toMatchObject(kept)
    },
  )

  test('never throws, whatever was thrown, and fits into JSON', () => {
    const hostile = fc.constantFrom(
      Object.create(null),
      Symbol('s'),
      { toString: () => ({}) },
      new Proxy(new Error('x'), { getPrototypeOf: refuse, get: refuse }),
      Object.assign(new Error('x'), { message: Symbol('m'), name: null, stack: 7 }),
      Object.assign(new Error('x'), { cause: Object.assign(new Error('y'), { message: undefined }) }),
    )
    fc.assert(
      fc.property(fc.oneof(fc.anything(), hostile), (thrown) => {
        const stored = JSON.parse(JSON.stringify(storedError(thrown)))
        expect(stored).toMatchObject({ name: expect.any(String), message: expect.any(String) })
      }),
    )
  })
})

test('each kind of failure is an Error with its name and cause', () => {
  const cause = new Error('cause')
  for (const error of [
    new Permanent('p', { cause }),
    new RetryAfter(5, 'r', { cause }),
    new RejectedAnswer('a', { cause }),
    new TriphaseError('CANCELLED', 'c', { cause }),
  ]) {
    expect(error).toBeInstanceOf(Error)
    expect(error.name).toBe(error.constructor.name)
    expect(error.cause).toBe(cause)
  }
})

test.each([
  [1_500, 1_500],
  [0.5, 0.5],
  [0, 1_000],
  [-1, 1_000],
  [Number.NaN, 30_000],
])('RetryAfter(%d) waits %d ms', (given, delayMs) => {
  expect(new RetryAfter(given).delayMs).toBe(delayMs)
  expect(new RetryAfter(given).message).toBe(`asked to come back in ${delayMs} ms`)
})
