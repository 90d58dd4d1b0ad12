import { expect } from 'vitest'
import type { Fault, FaultOptions } from '../support/fault-proxy.ts'
import type { WorkerProcess } from '../support/processes.ts'
import { callInSteps, refusedCall } from './note-task.ts'
import { useStage } from './stage.ts'
import type { Statement } from './statements.ts'

const stage = useStage()

/** kill -9, and nothing of the process is left on the server. */
async function kill(worker: WorkerProcess): Promise<void> {
  worker.kill()
  await worker.exited
  await stage.cut('worker')
}

/** Kills the process that runs a job at a statement of it. */
async function killedAt(statement: Statement, fault: Fault, options: FaultOptions = {}): Promise<string> {
  const held = stage.at('worker', statement, fault, options)
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await held.hit
  await kill(worker)
  return id
}

/** Another process finds the job of the dead one. */
async function rescue(id: string): Promise<string> {
  await stage.engine('b')
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [id], discarded: [] })
  expect(await stage.ended(id)).toMatchObject({ crashCount: 1 })
  return id
}

stage.row('killed-before-prepare', async () => rescue(await killedAt('begin', 'hold-before')))

stage.row('killed-in-prepare', async () => {
  const id = await killedAt('prepare writes', 'hold-reply')
  expect(await stage.sql(`SELECT FROM ${stage.table}`)).toEqual([])
  return rescue(id)
})

stage.row('killed-after-prepare', async () => {
  const id = await killedAt('commit', 'hold-reply')
  expect(await stage.note()).toMatchObject({ prepares: 1 })
  return rescue(id)
})

stage.row('killed-in-call', async () => {
  const call = stage.api.hold()
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await call.arrived
  await kill(worker)
  await call.release()
  return rescue(id)
})

stage.row('killed-before-store', async () => {
  const id = await killedAt('store answer', 'hold-before')
  expect(stage.api.calls).toBe(1)
  return rescue(id)
})

stage.row('killed-store-under-way', async () => {
  const store = stage.at('worker', 'store answer', 'hold-before')
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await store.hit
  worker.kill()
  await worker.exited
  store.release()
  await stage.stored(id, 'call')
  return rescue(id)
})

stage.row('killed-after-store', async () => {
  const id = await killedAt('store answer', 'hold-reply')
  expect(await stage.storedSteps(id)).toEqual(['call'])
  return rescue(id)
})

stage.row('killed-between-steps', async () => {
  const stored = stage.at('worker', 'store answer', 'hold-reply')
  const worker = await stage.worker('worker', { STEPS: 'one,two' })
  const id = await stage.enqueue()
  await stored.hit
  await kill(worker)
  expect(await stage.storedSteps(id)).toEqual(['one'])
  await stage.engine('b', { call: callInSteps(stage.api.url, 'one', 'two') })
  await stage.ended(id)
  expect([stage.api.callsFor('one'), stage.api.callsFor('two')]).toEqual([1, 1])
  return id
})

stage.row('killed-in-commit', async () => rescue(await killedAt('commit writes', 'hold-reply')))

stage.row('killed-after-ack', async () => rescue(await killedAt('ack', 'hold-reply')))

stage.row('killed-commit-arrives', async () => {
  const commit = stage.at('worker', 'commit', 'hold-before', { skip: 1 })
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await commit.hit
  worker.kill()
  await worker.exited
  await stage.engine('b')
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [] })
  commit.release()
  return id
})

stage.row('killed-commit-lost', async () => {
  const commit = stage.at('worker', 'commit', 'hold-before', { skip: 1 })
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await commit.hit
  worker.kill()
  await worker.exited
  const rescuer = await stage.engine('b')
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [] })
  await stage.cut('worker')
  await rescuer.stop()
  // Maintenance comes round with a new leader, or every 30 s.
  await stage.engine('c')
  return id
})

stage.row('killed-after-commit', async () => {
  const id = await killedAt('commit', 'hold-reply', { skip: 1 })
  await stage.engine('b')
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [] })
  return id
})

stage.row('killed-too-often', async () => {
  stage.api.behave({ kind: 'hang' })
  const id = await stage.enqueue({ maxCrashes: 2 })
  for (const times of [1, 2]) {
    const worker = await stage.worker('worker')
    await stage.called(times)
    await kill(worker)
  }
  await stage.engine('b')
  expect(await stage.ended(id)).toMatchObject({ crashCount: 2, error: { code: 'CRASHED_TOO_OFTEN' } })
  return id
})

stage.row('killed-in-abandon', async () => {
  const commit = stage.at('worker', 'commit', 'hold-before', { skip: 1 })
  const worker = await stage.worker('worker', { REFUSED: 'yes' })
  const id = await stage.enqueue()
  await commit.hit
  await kill(worker)
  await stage.engine('b', { call: refusedCall(stage.api.url), abandon: async () => {} })
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [id] })
  return id
})
