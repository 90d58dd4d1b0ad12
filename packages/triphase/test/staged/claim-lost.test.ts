import { expect } from 'vitest'
import type { FaultHandle } from '../support/fault-proxy.ts'
import { deafCall } from './note-task.ts'
import { pause } from './pause.ts'
import { useStage } from './stage.ts'

const stage = useStage()

/** The engine that loses its job does not claim it again. */
const ONE_SLOT = { queues: { default: 1 } }

/** From now on nobody hears of this engine; when the beats are let go, it hears that it was taken for dead. */
function silence(engine: string): FaultHandle {
  return stage.at(engine, 'beat', 'hold-before', { times: Number.POSITIVE_INFINITY })
}

async function takenOver(id: string): Promise<void> {
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [id] })
  await stage.seen('b', 'job:started')
}

function letGo(beats: FaultHandle): void {
  beats.remove()
  beats.release()
}

/** The engine that was taken for dead finds out, and its job ends there. */
async function noticed(beats: FaultHandle): Promise<void> {
  letGo(beats)
  await stage.seen('a', 'process:lost')
  await stage.seen('a', 'job:lost')
}

stage.row('lost-in-prepare', async () => {
  const prepare = pause()
  await stage.engine('a', { prepare: () => prepare.here(), call: deafCall(stage.api.url) }, ONE_SLOT)
  const id = await stage.enqueue()
  await prepare.reached
  const beats = silence('a')
  await stage.engine('b')
  await takenOver(id)
  letGo(beats)
  await stage.seen('a', 'process:lost')
  prepare.go()
  await stage.seen('a', 'job:lost')
  return id
})

stage.row('lost-in-call', async () => {
  stage.api.behave({ kind: 'hang' }, { times: 1 })
  await stage.engine('a', {}, ONE_SLOT)
  const id = await stage.enqueue()
  await stage.called(1)
  const beats = silence('a')
  await stage.engine('b')
  await takenOver(id)
  await noticed(beats)
  await stage.hungUp(1)
  return id
})

stage.row('lost-in-call-answer-first', async () => {
  const call = stage.api.hold()
  await stage.engine('a', {}, ONE_SLOT)
  const id = await stage.enqueue()
  await call.arrived
  const beats = silence('a')
  const prepare = pause()
  await stage.engine('b', { prepare: () => prepare.here() })
  await takenOver(id)
  await prepare.reached
  await call.release()
  await stage.seen('a', 'job:answer-stored')
  prepare.go()
  await stage.ended(id)
  await noticed(beats)
  return id
})

stage.row('lost-in-call-both-answers', async () => {
  const first = stage.api.hold()
  await stage.engine('a', {}, ONE_SLOT)
  const id = await stage.enqueue()
  await first.arrived
  const beats = silence('a')
  const second = stage.api.hold()
  await stage.engine('b')
  await second.arrived
  await first.release({ kind: 'answer', answer: 'first' })
  await stage.stored(id, 'call')
  await second.release({ kind: 'answer', answer: 'second' })
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ text: 'first' })
  await noticed(beats)
  return id
})

stage.row('lost-in-call-failed', async () => {
  const first = stage.api.hold()
  await stage.engine('a', {}, ONE_SLOT)
  const id = await stage.enqueue()
  await first.arrived
  const beats = silence('a')
  const second = stage.api.hold()
  await stage.engine('b')
  await second.arrived
  await first.release({ kind: 'error' })
  await stage.seen('a', 'job:lost')
  await second.release()
  await stage.ended(id)
  expect(stage.events('b', 'job:started')).toHaveLength(1)
  letGo(beats)
  return id
})

stage.row('lost-in-commit', async () => {
  const commit = pause()
  await stage.engine('a', { commit: () => commit.here() }, ONE_SLOT)
  const id = await stage.enqueue()
  await commit.reached
  const beats = silence('a')
  await stage.engine('b')
  await takenOver(id)
  commit.go()
  await stage.seen('a', 'job:lost')
  await noticed(beats)
  return id
})

stage.row('lost-after-ack', async () => {
  const commit = stage.at('a', 'commit', 'hold-before', { skip: 1 })
  await stage.engine('a', {}, ONE_SLOT)
  const id = await stage.enqueue()
  await commit.hit
  const beats = silence('a')
  await stage.engine('b')
  expect(await stage.seen('b', 'jobs:rescued')).toMatchObject({ again: [] })
  commit.release()
  expect(await stage.seen('a', 'job:completed')).toMatchObject({ jobId: id, claimNo: 1 })
  letGo(beats)
  return id
})

stage.row('lost-while-stopped', async () => {
  const first = stage.api.hold()
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await first.arrived
  const beats = silence('worker')
  worker.kill('SIGSTOP')
  const second = stage.api.hold()
  await stage.engine('b')
  await second.arrived
  await first.release({ kind: 'answer', answer: 'first' })
  worker.kill('SIGCONT')
  await stage.stored(id, 'call')
  await second.release({ kind: 'answer', answer: 'second' })
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ text: 'first' })
  letGo(beats)
  await worker.waitForLine(/^job:lost/)
  await worker.waitForLine(/^process:lost/)
  return id
})
