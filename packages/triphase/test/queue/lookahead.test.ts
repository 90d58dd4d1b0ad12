import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Lookahead } from '../../src/queue/lookahead.ts'

function after(...heldMs: number[]): Lookahead {
  const lookahead = new Lookahead()
  for (const held of heldMs) lookahead.count(held)
  return lookahead
}

test('claims ahead what its slots get through in 50 ms', () => {
  expect(after(...Array(100).fill(5)).size(4)).toBe(40)
})

test('claims nothing ahead before a job has shown how long it takes', () => {
  expect(after().size(200)).toBe(0)
})

test('claims nothing ahead of jobs that take seconds, however many have just started or ended', () => {
  expect(after(...Array(12).fill(15_000)).size(12)).toBe(0)
})

test('one slow job among quick ones ends it, and quick ones bring it back', () => {
  const lookahead = after(...Array(100).fill(1), 15_000)
  expect(lookahead.size(12)).toBe(0)
  for (let job = 0; job < 100; job++) lookahead.count(1)
  expect(lookahead.size(12)).toBeGreaterThan(100)
})

test('a stall ends it for all but many slots', () => {
  const lookahead = after(...Array(100).fill(1))
  lookahead.stalled(1_000)
  expect(lookahead.size(12)).toBe(0)
  expect(lookahead.size(200)).toBe(10)
})

test('is never more than one claim can bring beside the free slots', () => {
  fc.assert(
    fc.property(fc.array(fc.float({ min: 0, max: 1e9, noNaN: true })), fc.nat(10_000), (held, slots) => {
      const size = after(...held).size(slots)
      expect(size).toBeGreaterThanOrEqual(0)
      expect(size).toBeLessThanOrEqual(450)
      expect(Number.isInteger(size)).toBe(true)
    }),
    { numRuns: 50 },
  )
})
