import { expect } from 'vitest'
import { refusedCall } from './note-task.ts'
import { useStage } from './stage.ts'

const stage = useStage()

const abandon = async () => {}

stage.row('abandon-discarded', async () => {
  await stage.engine('a', { call: refusedCall(stage.api.url), abandon })
  return stage.enqueue()
})

stage.row('abandon-cancelled', async () => {
  stage.api.behave({ kind: 'hang' })
  await stage.engine('a', { abandon })
  const id = await stage.enqueue()
  await stage.called(1)
  await stage.client.cancel(id)
  return id
})

stage.row('abandon-throws', async () => {
  const throws = async () => {
    throw new Error('abandon fails too')
  }
  await stage.engine('a', { call: refusedCall(stage.api.url), abandon: throws })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ error: { name: 'Permanent' } })
  return id
})

stage.row('abandon-commit-unsent', async () => {
  const lost = stage.at('a', 'commit', 'cut-before', { skip: 1 })
  await stage.engine('a', { call: refusedCall(stage.api.url), abandon })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(lost.hits).toBe(1)
  return id
})

stage.row('abandon-commit-unanswered', async () => {
  const lost = stage.at('a', 'commit', 'cut-after', { skip: 1 })
  await stage.engine('a', { call: refusedCall(stage.api.url), abandon })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(lost.hits).toBe(1)
  return id
})
