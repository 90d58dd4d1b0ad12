import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { expect, onTestFinished } from 'vitest'
import { allowCalls } from '../../src/guard/index.ts'
import { defineTask, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { jobIn } from '../support/jobs.ts'
import { useScene } from './scene.ts'

const scene = useScene()

function gate(): { opened: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { opened: promise, open: resolve }
}

scene.row('two-at-once', async () => {
  const [inside, called] = [gate(), gate()]
  const innocent = scene.transaction(async () => {
    inside.open()
    await called.opened
  })
  const other = scene.engine.transaction(async () => {
    await inside.opened
    await fetch(scene.url)
    called.open()
  })
  await expect(other).rejects.toMatchObject({ code: 'CALL_IN_TRANSACTION' })
  return innocent
})

scene.row('beside', async () => {
  const [inside, called] = [gate(), gate()]
  const transaction = scene.transaction(async () => {
    inside.open()
    await called.opened
  })
  await inside.opened
  await fetch(scene.url)
  called.open()
  return transaction
})

scene.row('begun-before', async () => {
  const call = fetch(scene.url)
  return scene.transaction(() => call)
})

scene.row('body-inside', async () => {
  const response = await fetch(scene.url)
  return scene.transaction(() => response.text())
})

scene.row('afterwards', async () => {
  const ended = gate()
  const { call } = await scene.transaction(async () => ({ call: ended.opened.then(() => fetch(scene.url)) }))
  ended.open()
  await call
  expect(scene.requests).toHaveLength(1)
})

scene.row('job-enqueued-inside', async () => {
  const task = defineTask({
    name: 'calls',
    input: unchecked<null>(),
    run: async () => (await fetch(scene.url)).status,
  })
  const engine = scene.guarded({ tasks: [task], queues: { default: 1 } })
  await engine.start()
  await engine.transaction(async (tx) => {
    await scene.mark(tx)
    const { id } = await engine.enqueue(task, null)
    await jobIn(engine, id, 'completed')
  })
  expect(scene.requests).toHaveLength(1)
})

scene.row('pool-connects', async () => {
  const pool = new pg.Pool({ connectionString: testUrl() })
  onTestFinished(() => pool.end())
  const engine = scene.guarded()
  await engine.transaction(async (tx) => {
    await scene.mark(tx)
    expect(engine.connections().engine.open).toBe(0)
    await Promise.all([engine.counts(), pool.query('SELECT 1')])
  })
  expect(engine.connections().engine.open).toBe(1)
})

scene.row('allowed-host', async () => {
  await scene.transaction(() => fetch(scene.url), { allow: [scene.host] })
  await scene.pool.query(`DELETE FROM ${scene.table}`)
  await scene.guarded({ guard: { allow: ['127.0.0.1'] } }).transaction(() => fetch(scene.url))
  return scene.transaction(() => fetch(scene.url), { allow: ['.0.0.1'] })
})

scene.row('allowed-all', () =>
  scene.transaction(
    async () => {
      await fetch(scene.url)
      await scene.engine.transaction((tx) => tx.query('SELECT 1'))
    },
    { allow: true },
  ),
)

scene.row('allowed-piece', () =>
  scene.transaction(() => allowCalls([scene.host], () => delay(1).then(() => fetch(scene.url)))),
)
