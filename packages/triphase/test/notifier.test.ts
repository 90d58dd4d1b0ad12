import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type Hint, parseHint } from '../src/notifier.ts'

const hint: fc.Arbitrary<Hint> = fc.oneof(
  fc.record({ kind: fc.constantFrom('available', 'queue-changed'), queue: fc.string() }),
  fc.record({ kind: fc.constant('scheduled'), inMs: fc.double({ noNaN: true, noDefaultInfinity: true }) }),
  fc.record({ kind: fc.constant('cancel'), jobId: fc.bigInt(0n, 2n ** 63n - 1n).map(String) }),
  fc.constant({ kind: 'resync' }),
)

test('a hint comes back as it was written', () => {
  fc.assert(
    fc.property(hint, (given) => {
      expect(parseHint(JSON.stringify(given))).toEqual(JSON.parse(JSON.stringify(given)))
    }),
  )
})

test.each([
  [''],
  ['nonsense'],
  ['null'],
  ['7'],
  ['"available"'],
  ['[]'],
  ['{}'],
  ['{"kind":null}'],
  ['{"kind":"available"}'],
  ['{"kind":"available","queue":7}'],
  ['{"kind":"scheduled"}'],
  ['{"kind":"scheduled","inMs":"5"}'],
  ['{"kind":"cancel","jobId":5}'],
  ['{"kind":"queue-changed","queue":null}'],
  ['{"kind":"of a newer version"}'],
  ['{"kind":"resync"'],
  ['{"__proto__":{"kind":"resync"}}'],
])('%s is no hint', (payload) => {
  expect(parseHint(payload)).toBeNull()
})

test('whatever is sent, nothing is thrown', () => {
  const payload = fc.oneof(
    fc.string(),
    fc.json(),
    fc.object().map((value) => JSON.stringify(value)),
  )
  fc.assert(
    fc.property(payload, (given) => {
      const parsed = parseHint(given)
      if (parsed)
        expect(['available', 'scheduled', 'cancel', 'queue-changed', 'resync']).toContain(parsed.kind)
    }),
  )
})
