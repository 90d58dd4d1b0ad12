import { expect, test } from 'vitest'
import type { Hint, Notifier } from '../../src/index.ts'
import { HintOutbox } from '../../src/queue/hints.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()

const available = (queue: string): Hint => ({ kind: 'available', queue })

function outboxTo(publish: (hints: readonly Hint[]) => Promise<void>): {
  outbox: HintOutbox
  telemetry: Telemetry
} {
  const telemetry = new Telemetry()
  const notifier: Notifier = {
    name: 'test',
    start: async () => {},
    publish: (_database, hints) => publish(hints),
    stop: async () => {},
  }
  return { outbox: new HintOutbox(bench.schema.database, notifier, telemetry), telemetry }
}

test('equal hints go once, and what comes while they are sent goes together after them', async () => {
  const sent: (readonly Hint[])[] = []
  const first = Promise.withResolvers<void>()
  const { outbox } = outboxTo(async (hints) => {
    sent.push(hints)
    if (sent.length === 1) await first.promise
  })
  for (let n = 0; n < 100; n++) outbox.add([available('a')])
  await expect.poll(() => sent.length).toBe(1)
  for (let n = 0; n < 100; n++) outbox.add([available('a'), available('b'), { kind: 'cancel', jobId: '7' }])
  first.resolve()
  await outbox.flushed()
  expect(sent).toEqual([[available('a')], [available('a'), available('b'), { kind: 'cancel', jobId: '7' }]])
})

test('adding waits for nothing', () => {
  const { outbox } = outboxTo(() => new Promise(() => {}))
  outbox.add([available('a')])
  outbox.add([])
})

test('a hint that cannot be sent is reported, and the next one is sent', async () => {
  const sent: Hint[] = []
  const { outbox, telemetry } = outboxTo(async ([hint]) => {
    if (sent.push(hint!) === 1) throw new Error('no connection')
  })
  const failed = telemetry.next('statement:failed')
  outbox.add([available('a')])
  expect(await failed).toMatchObject({
    statement: 'notify',
    error: { message: 'no connection' },
    retryInMs: null,
  })
  outbox.add([available('b')])
  await outbox.flushed()
  expect(sent).toEqual([available('a'), available('b')])
})
