import { expect } from 'vitest'
import { deafCall } from './note-task.ts'
import { fired, pause } from './pause.ts'
import { useStage } from './stage.ts'

const stage = useStage()

/** A phase that goes on when it has been reached and its job was cancelled. */
function untilCancelled(): {
  reached: Promise<void>
  phase: (context: { signal: AbortSignal }) => Promise<void>
} {
  const reached = Promise.withResolvers<void>()
  return {
    reached: reached.promise,
    async phase({ signal }) {
      reached.resolve()
      await fired(signal)
    },
  }
}

stage.row('cancel-waiting', async () => {
  const id = await stage.enqueue()
  expect(await stage.client.cancel(id)).toBe('cancelled')
  await stage.engine('a')
  return id
})

stage.row('cancel-in-prepare', async () => {
  const { reached, phase } = untilCancelled()
  await stage.engine('a', { prepare: phase, call: deafCall(stage.api.url) })
  const id = await stage.enqueue()
  await reached
  expect(await stage.client.cancel(id)).toBe('requested')
  return id
})

stage.row('cancel-in-call', async () => {
  stage.api.behave({ kind: 'hang' })
  await stage.engine('a')
  const id = await stage.enqueue()
  await stage.called(1)
  expect(await stage.client.cancel(id)).toBe('requested')
  await stage.ended(id)
  await stage.hungUp(1)
  return id
})

stage.row('cancel-in-call-late-answer', async () => {
  const call = stage.api.hold()
  await stage.engine('a', { call: deafCall(stage.api.url, () => call.release()) })
  const id = await stage.enqueue()
  await call.arrived
  expect(await stage.client.cancel(id)).toBe('requested')
  return id
})

stage.row('cancel-in-call-leaked', async () => {
  const call = stage.api.hold()
  await stage.engine('a', { call: deafCall(stage.api.url) }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await call.arrived
  await stage.client.cancel(id)
  await stage.seen('a', 'job:leaked')
  await stage.ended(id)
  await call.release()
  return id
})

stage.row('cancel-in-commit', async () => {
  const { reached, phase } = untilCancelled()
  await stage.engine('a', { commit: phase })
  const id = await stage.enqueue()
  await reached
  expect(await stage.client.cancel(id)).toBe('requested')
  return id
})

stage.row('cancel-in-commit-leaked', async () => {
  const commit = pause()
  await stage.engine('a', { commit: () => commit.here() }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await commit.reached
  expect(await stage.client.cancel(id)).toBe('requested')
  await stage.ended(id)
  commit.go()
  return id
})

stage.row('cancel-between-attempts', async () => {
  stage.api.behave({ kind: 'error' })
  await stage.engine('a', { backoff: { initial: '1h' } })
  const id = await stage.enqueue()
  await stage.seen('a', 'job:retried')
  expect(await stage.client.cancel(id)).toBe('cancelled')
  return id
})

stage.row('cancel-then-killed', async () => {
  stage.api.behave({ kind: 'hang' })
  const worker = await stage.worker('worker')
  const id = await stage.enqueue()
  await stage.called(1)
  worker.kill('SIGSTOP')
  expect(await stage.client.cancel(id)).toBe('requested')
  worker.kill()
  await worker.exited
  await stage.cut('worker')
  await stage.engine('b')
  return id
})
