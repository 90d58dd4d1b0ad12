import { expect, test } from 'vitest'
import { type Hint, memoryNotifier } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { notifierContract, useListeners } from './contract.ts'

const bench = useEngines()
const listener = useListeners(memoryNotifier)

notifierContract(bench, memoryNotifier)

test('hints of all kinds arrive as they were sent, in order, and not in the middle of what the publisher does', async () => {
  const [a, b] = [listener(bench.schema), listener(bench.schema)]
  await b.start()
  const hints: Hint[] = [
    { kind: 'cancel', jobId: '7' },
    { kind: 'scheduled', inMs: 5 },
    { kind: 'queue-changed', queue: 'queue' },
    { kind: 'resync' },
  ]
  await a.notifier.publish(bench.schema.database, hints)
  expect(b.hints).toEqual([])
  await expect.poll(() => b.hints).toEqual(hints)
})
