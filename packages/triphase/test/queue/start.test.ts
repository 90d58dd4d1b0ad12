import { expect, test } from 'vitest'
import { defineTask, memoryNotifier, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { Gate, jobIn } from '../support/jobs.ts'

const bench = useEngines()

const processes = () => bench.schema.database.query('SELECT id FROM triphase.process')

test('jobs that wait run while the notifier still connects', async () => {
  const gate = new Gate()
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => 'done' })
  const memory = memoryNotifier()
  const slow = {
    ...memory,
    start: async (context: Parameters<typeof memory.start>[0]) => {
      await gate.pass()
      await memory.start(context)
    },
  }
  const engine = bench.engine({
    tasks: [task],
    queues: { default: 1 },
    notifier: slow,
    heartbeat: '30s',
    deadAfter: '90s',
  })
  const { id } = await engine.enqueue(task, null)
  const started = engine.start()
  await gate.reached
  await jobIn(engine, id, 'completed')
  const unheard = await bench.engine().enqueue(task, null)
  gate.open()
  await started
  await jobIn(engine, unheard.id, 'completed')
})

test('a notifier that cannot start leaves no process behind, and the engine can be started again', async () => {
  const memory = memoryNotifier()
  let starts = 0
  const broken = {
    ...memory,
    start: async (context: Parameters<typeof memory.start>[0]) => {
      if (++starts === 1) throw new Error('no such broker')
      await memory.start(context)
    },
  }
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => 'done' })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 }, notifier: broken })
  await expect(engine.start()).rejects.toThrow('no such broker')
  expect(await processes()).toEqual([])
  await engine.start()
  expect(await processes()).toHaveLength(1)
  const { id } = await engine.enqueue(task, null)
  await jobIn(engine, id, 'completed')
})
