import { setTimeout as delay } from 'node:timers/promises'
import { expect } from 'vitest'
import { RejectedAnswer } from '../../src/index.ts'
import { deafCall } from './note-task.ts'
import { fired, pause } from './pause.ts'
import { useStage } from './stage.ts'

const stage = useStage()
const timeout = '600ms'

stage.row('timeout-in-prepare', async () => {
  await stage.engine('a', {
    timeout,
    prepare: async ({ job, signal }) => {
      if (job.attempt === 1) await pause().here(signal)
    },
  })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ prepares: 1 })
  return id
})

stage.row('timeout-in-prepare-ignored', async () => {
  await stage.engine('a', {
    timeout,
    prepare: async ({ job, signal }) => {
      if (job.attempt === 1) await fired(signal)
    },
    call: deafCall(stage.api.url),
  })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ prepares: 2 })
  return id
})

stage.row('timeout-in-prepare-leaked', async () => {
  const first = pause()
  const prepare = async ({ job }: { job: { attempt: number } }) => {
    if (job.attempt === 1) await first.here()
  }
  await stage.engine('a', { timeout, prepare, call: deafCall(stage.api.url) }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await stage.seen('a', 'job:leaked')
  first.go()
  return id
})

stage.row('timeout-in-call', async () => {
  stage.api.behave({ kind: 'hang' }, { times: 1 })
  await stage.engine('a', { timeout })
  const id = await stage.enqueue()
  await stage.ended(id)
  await stage.hungUp(1)
  return id
})

stage.row('timeout-in-call-late-answer', async () => {
  const call = stage.api.hold()
  await stage.engine('a', { timeout, call: deafCall(stage.api.url, () => call.release()) })
  return stage.enqueue()
})

stage.row('timeout-in-call-late-answer-rejected', async () => {
  const call = stage.api.hold()
  await stage.engine('a', {
    timeout,
    call: deafCall(stage.api.url, () => call.release({ kind: 'answer', answer: 'garbage' })),
    commit: async ({ answer }) => {
      if (answer === 'garbage') throw new RejectedAnswer('the model answered garbage')
    },
  })
  return stage.enqueue()
})

stage.row('timeout-in-call-leaked', async () => {
  const call = stage.api.hold()
  const second = pause()
  const prepare = async ({ job }: { job: { attempt: number } }) => {
    if (job.attempt === 2) await second.here()
  }
  await stage.engine('a', { timeout, prepare, call: deafCall(stage.api.url) }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await stage.seen('a', 'job:leaked')
  await second.reached
  await call.release()
  await stage.stored(id, 'call')
  second.go()
  return id
})

stage.row('timeout-in-call-leaked-called-again', async () => {
  const first = stage.api.hold()
  await stage.engine('a', { timeout: '1s', call: deafCall(stage.api.url) }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await first.arrived
  const second = stage.api.hold()
  await second.arrived
  await first.release({ kind: 'answer', answer: 'first' })
  await stage.stored(id, 'call')
  await second.release({ kind: 'answer', answer: 'second' })
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ text: 'first' })
  return id
})

stage.row('timeout-in-commit', async () => {
  const timedOut: boolean[] = []
  const commit = async ({ signal }: { signal: AbortSignal }) => {
    await delay(900)
    timedOut.push(signal.aborted)
  }
  await stage.engine('a', { timeout, commit }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(timedOut).toEqual([false])
  return id
})
