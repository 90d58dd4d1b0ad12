// Another server behind the same URL, which lacks what the first one did last.
import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { sceneOf } from './scene.ts'

const BEATING = { heartbeat: '200ms', deadAfter: '600ms' } as const

test('jobs are claimed at once though their positions begin again lower down than claims have come', async (context) => {
  const scene = await sceneOf(context)
  const proxy = await scene.proxy()
  const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => 'done' })
  const url = proxy.url(testUrl())
  const engine = scene.engine({ ...BEATING, url, tasks: [task], queues: { default: 2 } })
  await engine.start()
  for (let rounds = 0; rounds < 5; rounds++) {
    await engine.enqueueMany(task, Array(10).fill({ input: null }))
    await scene.allDone()
  }
  const again = engine.telemetry.next('notifier:changed', ({ connected }) => connected)
  await scene.rows(`SELECT setval('triphase.job_position', 1)`)
  proxy.cutAll()
  await again
  await scene.engine().enqueueMany(task, Array(20).fill({ input: null }))
  // Sooner than a walk from the start would find the first of them.
  await scene.allDone(15_000)
  expect(await scene.rows(`SELECT FROM triphase.job_history WHERE state = 'completed'`)).toHaveLength(70)
})
