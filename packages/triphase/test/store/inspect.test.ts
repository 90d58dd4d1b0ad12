import { expect, test } from 'vitest'
import { defineTask, RetryAfter, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()

test('counts live jobs by queue and state', async () => {
  const task = defineTask({ name: 'task', input: unchecked<number>(), run: () => null })
  const engine = bench.engine()
  await engine.enqueueMany(task, [
    { input: 1 },
    { input: 2 },
    { input: 3, delay: '1h' },
    { input: 4, queue: 'other' },
  ])
  expect(await engine.counts()).toEqual([
    { queue: 'default', state: 'available', count: 2 },
    { queue: 'default', state: 'scheduled', count: 1 },
    { queue: 'other', state: 'available', count: 1 },
  ])
})

test('attempts come oldest first', async () => {
  let calls = 0
  const task = defineTask({
    name: 'task',
    input: unchecked<null>(),
    maxAttempts: 2,
    backoff: { initial: 1 },
    run: () => {
      if (++calls === 1) throw new RetryAfter(1)
      throw new Error(`call ${calls}`)
    },
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  await jobIn(engine, id, 'discarded')
  const attempts = await engine.attempts(id)
  expect(attempts.map(({ claimNo, attempt, outcome }) => [claimNo, attempt, outcome])).toEqual([
    [1, 1, 'retried'],
    [2, 1, 'retried'],
    [3, 2, 'discarded'],
  ])
  for (const { startedAt, finishedAt } of attempts) {
    expect(finishedAt.getTime()).toBeGreaterThanOrEqual(startedAt!.getTime())
  }
})
