// Sixty-three workers, as many as a process of MISSION's incident has, through a real PgBouncer that misbehaves.
import { randomBytes } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { type Notifier, pollingNotifier } from '../../src/index.ts'
import { lasting } from '../liveness/scene.ts'
import { NO_PGBOUNCER } from '../support/pgbouncer.ts'
import { eventually } from '../support/processes.ts'
import { type PooledScene, pooledScene } from './pooled-scene.ts'

const WORKERS = 63
const JOBS = 150
const CALL_MS = 300

/** Two processes, whose peers would take over at once from whom they take for dead. */
async function work({ scene, pay, urls, api }: PooledScene, more: { notifier?: () => Notifier } = {}) {
  api.behave({ kind: 'answer', afterMs: CALL_MS })
  const beating = { heartbeat: '500ms', deadAfter: '3s' } as const
  const name = `pooled ${randomBytes(4).toString('hex')}`
  const options = { ...urls, ...beating, name, tasks: [pay], queues: { default: WORKERS } }
  const engines = [1, 2].map(() =>
    scene.engine({ ...options, ...(more.notifier ? { notifier: more.notifier() } : {}) }),
  )
  const alarms = scene.alarmsOf(engines, ['jobs:rescued', 'process:lost', 'job:lost'])
  await Promise.all(engines.map((engine) => engine.start()))
  const jobs = await scene.engine().enqueueMany(pay, Array(JOBS).fill({ input: {} }))
  const ids = jobs.map(({ id }) => id)
  return { ids, alarms, engines, name }
}

describe.skipIf(NO_PGBOUNCER)('through PgBouncer, every job is done once and paid for once', () => {
  test('with two server connections for each pool', async (context) => {
    const it = await pooledScene(context, { settings: { default_pool_size: 2 } })
    const { ids, alarms, engines, name } = await work(it)
    let most = 0
    // PgBouncer's own, with which it reads passwords, has the name of whoever logs in.
    const connections = `SELECT FROM pg_stat_activity WHERE application_name LIKE $1 AND usename NOT LIKE 'pooler%'`
    while ((await it.scene.rows(`SELECT FROM triphase.job`)).length > 0) {
      most = Math.max(most, (await it.scene.rows(connections, [`${name}%`])).length)
      await lasting(20)
    }
    await it.expectEachDoneOnce(ids)
    expect(alarms).toEqual([])
    expect(engines[0]!.connections().engine.inUse).toBeLessThanOrEqual(3)
    // Two of the engines' pool, two of the applications', and each process listens.
    expect(most).toBeLessThanOrEqual(6)
    expect(most).toBeGreaterThan(0)
  })

  test('while it is restarted', async (context) => {
    const it = await pooledScene(context)
    const { ids, alarms } = await work(it, { notifier: pollingNotifier })
    await eventually(() => it.api.calls > JOBS / 4)
    await it.pgbouncer.restart()
    await eventually(() => it.api.calls > JOBS / 2)
    await it.pgbouncer.kill()
    await lasting(700)
    await it.pgbouncer.start()
    await it.expectEachDoneOnce(ids)
    expect(alarms).toEqual([])
  })

  test('while it closes server connections that were idle for a second', async (context) => {
    const it = await pooledScene(context, { settings: { server_idle_timeout: 1 } })
    const { ids, alarms, engines } = await work(it)
    await it.expectEachDoneOnce(ids)
    await eventually(() => expect(it.pgbouncer.log).toMatch(/server idle timeout/), { timeout: 20_000 })
    const more = await engines[0]!.enqueueMany(it.pay, Array(5).fill({ input: {} }))
    await it.expectEachDoneOnce([...ids, ...more.map(({ id }) => id)])
    expect(alarms).toEqual([])
  })

  test('while its connections to the server are ended under way, over and over', async (context) => {
    const it = await pooledScene(context)
    const { ids, alarms, name } = await work(it)
    const end = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE application_name LIKE $1`
    let ended = 0
    while ((await it.scene.rows(`SELECT FROM triphase.job`)).length > 0 && ended < 60) {
      ended += (await it.scene.rows(end, [`${name}%`])).length
      await lasting(100)
    }
    await it.expectEachDoneOnce(ids)
    expect(alarms).toEqual([])
    expect(ended).toBeGreaterThan(5)
  })
})
