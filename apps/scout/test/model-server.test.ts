import { expect, onTestFinished, test } from 'vitest'
import { spawnModelServer } from './support/model-server-process.ts'

test('the model server runs in a process of its own, follows its rules, and counts', async () => {
  const server = await spawnModelServer()
  onTestFinished(() => server.stop())
  const ask = (idempotencyKey: string) =>
    fetch(`${server.url}/chat/completions`, {
      method: 'POST',
      headers: { 'Idempotency-Key': idempotencyKey },
      body: '{"model":"m"}',
    })
  await server.behave(
    { behaviour: { kind: 'status', status: 429 }, times: 1 },
    { behaviour: { kind: 'hold' }, idempotencyKey: 'held' },
  )
  expect((await ask('a')).status).toBe(429)
  const held = [ask('held'), ask('held')]
  expect(await server.calls(3)).toMatchObject({ inFlight: 2, peakInFlight: 2 })
  expect((await ask('b')).status).toBe(200)
  await server.release()
  expect((await Promise.all(held)).map(({ status }) => status)).toEqual([200, 200])
  const { calls } = await server.calls(4)
  expect(calls.map(({ idempotencyKey }) => idempotencyKey)).toEqual(['a', 'held', 'held', 'b'])
})
