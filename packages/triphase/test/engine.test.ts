import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../src/index.ts'
import { useEngines } from './support/engines.ts'

const bench = useEngines()

test('a job is enqueued, run and completed, and its result is kept', async () => {
  const double = defineTask({
    name: 'double',
    input: unchecked<{ n: number }>(),
    run: ({ input }) => input.n * 2,
  })
  const engine = bench.engine({ tasks: [double], queues: { default: 2 } })
  const completed = engine.telemetry.next('job:completed')
  await engine.start()
  const { id, created } = await engine.enqueue(double, { n: 21 })
  expect(created).toBe(true)
  expect(await completed).toMatchObject({ jobId: id, attempt: 1, claimNo: 1, result: 42 })
  expect(await engine.job(id)).toMatchObject({ state: 'completed', result: 42, input: { n: 21 }, attempt: 1 })
})
