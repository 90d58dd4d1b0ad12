import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()

test('jobs that were running in two crashes run one at a time in a process, over all its queues, beside the others', async () => {
  const running = new Set<string>()
  const waiting = new Set<() => void>()
  let most = 0
  const task = defineTask({
    name: 'task',
    input: unchecked<string>(),
    run: async ({ input, job }) => {
      if (input === 'innocent') return
      running.add(job.id)
      most = Math.max(most, running.size)
      await new Promise<void>((resolve) => waiting.add(resolve))
      running.delete(job.id)
    },
  })
  const engine = bench.engine({ tasks: [task], queues: { a: 5, b: 5 }, heartbeat: 100, deadAfter: 300 })
  const suspects = await engine.enqueueMany(
    task,
    ['a', 'b', 'a', 'b', 'a'].map((queue) => ({ input: 'suspect', queue })),
  )
  await bench.schema.database.query('UPDATE triphase.job SET crash_count = 2')
  const innocents = await engine.enqueueMany(
    task,
    ['a', 'b', 'a', 'b'].map((queue) => ({ input: 'innocent', queue })),
  )
  await engine.start()
  const done = async ({ id }: { id: string }) => (await engine.job(id))?.state === 'completed'
  await eventually(async () => (await Promise.all(innocents.map(done))).every(Boolean))
  for (let finished = 0; finished < suspects.length; finished++) {
    await eventually(() => running.size === 1)
    for (const resolve of waiting) resolve()
    waiting.clear()
    await eventually(
      async () => (await Promise.all(suspects.map(done))).filter(Boolean).length === finished + 1,
    )
  }
  expect(most).toBe(1)
})
