import { expect, onTestFinished, test, vi } from 'vitest'
import { Producer } from '../../src/queue/producer.ts'

/** A producer whose claims fail. */
function refused(): { producer: Producer; claims: number[] } {
  const claims: number[] = []
  const producer = new Producer({
    queue: 'default',
    concurrency: 1,
    claim: () => Promise.reject(new Error('refused')),
    run: () => Promise.resolve(),
    handBack: () => {},
    ready: () => Promise.resolve(),
    onClaimFailed: (_error, retryInMs) => claims.push(retryInMs),
  })
  onTestFinished(() => producer.stop())
  return { producer, claims }
}

async function turns(each: () => void = () => {}): Promise<void> {
  for (let turn = 0; turn < 20; turn++) {
    each()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

test('a claim that failed is tried again when its pause is over, however often it is said that there is work', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const { producer, claims } = refused()
  producer.start()
  await turns(() => producer.wake())
  expect(claims).toEqual([100])
  for (const [pause, tried] of [
    [99, 1],
    [1, 2],
    [249, 2],
    [1, 3],
  ] as const) {
    vi.advanceTimersByTime(pause)
    await turns(() => producer.wake())
    expect(claims).toHaveLength(tried)
  }
})

test('once a connection is back it does not wait for the pause to be over', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  onTestFinished(() => void vi.useRealTimers())
  const { producer, claims } = refused()
  producer.start()
  await turns()
  producer.resync()
  await turns(() => producer.wake())
  expect(claims).toEqual([100, 100])
})
