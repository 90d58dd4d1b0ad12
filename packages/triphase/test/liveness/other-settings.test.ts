import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { lasting, sceneOf } from './scene.ts'

test('a process that beats more seldom than others, as in a rolling deploy that changes it, is not taken for dead', async (context) => {
  const scene = await sceneOf(context)
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => lasting(1_500) })
  const queues = { default: 1 }
  const seldom = scene.engine({ heartbeat: '2s', deadAfter: '6s', tasks: [task], queues })
  const often = scene.engine({ heartbeat: '100ms', deadAfter: '300ms', tasks: [task], queues: { other: 1 } })
  const alarms = scene.alarmsOf([seldom, often])
  await Promise.all([seldom.start(), often.start()])
  const { id } = await often.enqueue(task, null)
  await scene.allDone()
  expect(alarms).toEqual([])
  expect(await seldom.job(id)).toMatchObject({ state: 'completed', crashCount: 0 })
})
