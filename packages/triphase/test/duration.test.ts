import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Duration, milliseconds } from '../src/duration.ts'

const UNITS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

test.each<[Duration, number]>([
  [0, 0],
  [1_500, 1_500],
  ['0s', 0],
  ['250ms', 250],
  ['150s', 150_000],
  ['1.5m', 90_000],
  ['2h', 7_200_000],
  ['7d', 604_800_000],
  ['007s', 7_000],
])('%o is %d ms', (duration, length) => {
  expect(milliseconds(duration)).toBe(length)
})

test.each([
  [''],
  ['5'],
  ['5 s'],
  ['-5s'],
  ['+5s'],
  ['.5s'],
  ['5.s'],
  ['5S'],
  ['5sec'],
  ['1e3s'],
  ['5s\n'],
  [' 5s'],
  ['5m30s'],
  ['١s'],
  [-1],
  [Number.NaN],
  [Number.POSITIVE_INFINITY],
  [null],
  [undefined],
  [{}],
])('%o is refused by an error that says how to write it', (duration) => {
  const parse = () => milliseconds(duration as Duration)
  expect(parse).toThrow(expect.objectContaining({ code: 'INVALID_DURATION' }))
  expect(parse).toThrow(/not a length of time\. Write milliseconds as a number, or .* '150s'/)
})

test('a number with a unit is that number times the unit', () => {
  const units = fc.constantFrom(...(Object.keys(UNITS) as (keyof typeof UNITS)[]))
  fc.assert(
    fc.property(fc.nat(1_000_000), units, (count, unit) => {
      expect(milliseconds(`${count}${unit}`)).toBe(count * UNITS[unit])
    }),
  )
})

test('any text is a length of time or refused; never NaN, never negative', () => {
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[-+]?\d*\.?\d*[ ]?(ms|s|m|h|d|w)?$/))
  fc.assert(
    fc.property(text, (given) => {
      try {
        expect(milliseconds(given as Duration)).toBeGreaterThanOrEqual(0)
        expect(given).toMatch(/^\d+(\.\d+)?(ms|s|m|h|d)$/)
      } catch (error) {
        expect(error).toMatchObject({ code: 'INVALID_DURATION' })
      }
    }),
  )
})

test.each([Number.NaN, Number.POSITIVE_INFINITY])('%d is named as what it is', (number) => {
  expect(() => milliseconds(number)).toThrow(`${number} is not a length of time`)
})
