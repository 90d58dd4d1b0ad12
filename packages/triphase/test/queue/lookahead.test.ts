import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Lookahead } from '../../src/queue/lookahead.ts'

function after(starts: number, ms: number): Lookahead {
  const lookahead = new Lookahead(0)
  for (let start = 0; start < starts; start++) lookahead.count()
  lookahead.size(ms)
  return lookahead
}

test('claims ahead what was started in the last 50 ms', () => {
  expect(after(100, 100).size(100)).toBe(50)
})

test('claims nothing ahead of jobs that take seconds', () => {
  expect(after(12, 1_000).size(1_000)).toBe(0)
})

test('forgets a burst once the queue has been quiet', () => {
  const lookahead = after(10_000, 100)
  expect(lookahead.size(100)).toBeGreaterThan(400)
  expect(lookahead.size(10_000)).toBe(0)
})

test('is never more than one claim can bring beside the free slots', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(5_000), fc.nat(200))), (rounds) => {
      const lookahead = new Lookahead(0)
      let now = 0
      for (const [starts, ms] of rounds) {
        now += ms
        for (let start = 0; start < starts; start++) lookahead.count()
        const size = lookahead.size(now)
        expect(size).toBeGreaterThanOrEqual(0)
        expect(size).toBeLessThanOrEqual(450)
      }
    }),
    { numRuns: 50 },
  )
})
