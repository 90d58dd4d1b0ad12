import { deafCall } from './note-task.ts'
import { fired } from './pause.ts'
import { useStage } from './stage.ts'

const stage = useStage()

stage.row('stop-in-call', async () => {
  const call = stage.api.hold()
  const engine = await stage.engine('a')
  const id = await stage.enqueue()
  await call.arrived
  const stopped = engine.stop({ graceMs: 10_000 })
  await stage.seen('a', 'process:stopping')
  await call.release()
  await stopped
  return id
})

stage.row('stop-in-call-grace-over', async () => {
  stage.api.behave({ kind: 'hang' }, { times: 1 })
  const engine = await stage.engine('a')
  const id = await stage.enqueue()
  await stage.called(1)
  await engine.stop({ graceMs: 0 })
  await stage.engine('b')
  return id
})

stage.row('stop-in-call-late-answer', async () => {
  const call = stage.api.hold()
  const lateCall = deafCall(stage.api.url, () => call.release())
  const engine = await stage.engine('a', { call: lateCall }, { abortGrace: '10s' })
  const id = await stage.enqueue()
  await call.arrived
  await engine.stop({ graceMs: 0 })
  return id
})

stage.row('stop-in-call-leaked', async () => {
  const call = stage.api.hold()
  const engine = await stage.engine('a', { call: deafCall(stage.api.url) }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await call.arrived
  await engine.stop({ graceMs: 0 })
  await call.release()
  await stage.engine('b')
  return id
})

stage.row('stop-in-commit', async () => {
  const reached = Promise.withResolvers<void>()
  const commit = ({ signal }: { signal: AbortSignal }) => {
    reached.resolve()
    return fired(signal)
  }
  const engine = await stage.engine('a', { commit }, { abortGrace: '10s' })
  const id = await stage.enqueue()
  await reached.promise
  await engine.stop({ graceMs: 0 })
  return id
})
