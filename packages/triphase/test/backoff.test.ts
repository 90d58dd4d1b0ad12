import fc from 'fast-check'
import { expect, test } from 'vitest'
import { backoffDelay } from '../src/backoff.ts'

const backoff = fc.record(
  {
    initial: fc.integer({ min: 1, max: 1e6 }),
    max: fc.integer({ min: 1, max: 1e9 }),
    factor: fc.double({ min: 1, max: 10, noNaN: true }),
  },
  { requiredKeys: [] },
)
const attempt = fc.integer({ min: 1, max: 32_767 })
const random = fc.double({ min: 0, max: 1, noNaN: true })

test.each([
  [1, 0, 500],
  [1, 1, 1_000],
  [3, 0, 2_000],
  [3, 1, 4_000],
  [100, 0, 1_800_000],
  [100, 1, 3_600_000],
])('after attempt %d with %d of the jitter: %d ms', (failed, jitter, delayMs) => {
  expect(backoffDelay(failed, {}, jitter)).toBe(delayMs)
})

test('takes lengths of time as text', () => {
  expect(backoffDelay(2, { initial: '10s', factor: 3, max: '1m' }, 1)).toBe(30_000)
  expect(backoffDelay(9, { initial: '10s', factor: 3, max: '1m' }, 1)).toBe(60_000)
})

test('is always finite, above zero, at least half and at most all of the full delay, and never above the maximum', () => {
  fc.assert(
    fc.property(attempt, backoff, random, (failed, options, jitter) => {
      const delay = backoffDelay(failed, options, jitter)
      const full = backoffDelay(failed, options, 1)
      expect(delay).toBeGreaterThan(0)
      expect(delay).toBeLessThanOrEqual(options.max ?? 3_600_000)
      expect(delay).toBeGreaterThanOrEqual(full / 2)
      expect(delay).toBeLessThanOrEqual(full)
    }),
  )
})

test('grows from attempt to attempt until it has reached the maximum', () => {
  fc.assert(
    fc.property(attempt, backoff, random, (failed, options, jitter) => {
      const [now, next] = [backoffDelay(failed, options, jitter), backoffDelay(failed + 1, options, jitter)]
      expect(next).toBeGreaterThanOrEqual(now)
    }),
  )
})

test('draws its own jitter', () => {
  const drawn = new Set(Array.from({ length: 50 }, () => backoffDelay(5, {})))
  expect(drawn.size).toBeGreaterThan(10)
  for (const delay of drawn) {
    expect(delay).toBeGreaterThanOrEqual(8_000)
    expect(delay).toBeLessThanOrEqual(16_000)
  }
})
