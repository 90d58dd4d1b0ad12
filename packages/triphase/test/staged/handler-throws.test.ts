import { expect } from 'vitest'
import { alreadyDone, knownAnswer, Permanent, RejectedAnswer } from '../../src/index.ts'
import { callInSteps, refusedCall } from './note-task.ts'
import { useStage } from './stage.ts'

const stage = useStage()

async function onFirstAttempt({ job }: { job: { attempt: number } }): Promise<void> {
  if (job.attempt === 1) throw new Error('the first attempt fails')
}

async function always(): Promise<never> {
  throw new Error('every attempt fails')
}

stage.row('throws-in-prepare', async () => {
  await stage.engine('a', { prepare: onFirstAttempt })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ prepares: 1 })
  return id
})

stage.row('throws-unseen-in-prepare', async () => {
  await stage.engine('a', {
    prepare: async ({ tx, job }) => {
      if (job.attempt === 1) await tx.query('SELECT 1 / 0').catch(() => {})
    },
  })
  return stage.enqueue()
})

stage.row('throws-in-call', async () => {
  stage.api.behave({ kind: 'error' }, { times: 1 })
  await stage.engine('a')
  return stage.enqueue()
})

stage.row('throws-in-step', async () => {
  stage.api.behave({ kind: 'error' }, { key: 'two', times: 1 })
  await stage.engine('a', { call: callInSteps(stage.api.url, 'one', 'two') })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect([stage.api.callsFor('one'), stage.api.callsFor('two')]).toEqual([1, 2])
  return id
})

stage.row('throws-in-commit', async () => {
  await stage.engine('a', { commit: onFirstAttempt })
  return stage.enqueue()
})

stage.row('throws-in-call-always', async () => {
  stage.api.behave({ kind: 'garbage' })
  await stage.engine('a')
  return stage.enqueue({ maxAttempts: 3 })
})

stage.row('throws-in-commit-always', async () => {
  await stage.engine('a', { commit: always })
  const id = await stage.enqueue({ maxAttempts: 3 })
  await stage.ended(id)
  expect(await stage.storedSteps(id)).toEqual(['call'])
  return id
})

stage.row('throws-in-commit-then-retried-by-hand', async () => {
  let broken = true
  await stage.engine('a', { commit: async () => broken && always() })
  const id = await stage.enqueue({ maxAttempts: 2 })
  await stage.seen('a', 'job:discarded')
  broken = false
  expect(await stage.client.retry(id)).toBe(true)
  return id
})

stage.row('retry-after-in-call', async () => {
  stage.api.behave({ kind: 'rate-limited', retryAfter: 0.05 }, { times: 2 })
  await stage.engine('a')
  return stage.enqueue({ maxAttempts: 1 })
})

stage.row('permanent-in-call', async () => {
  await stage.engine('a', { call: refusedCall(stage.api.url) })
  return stage.enqueue()
})

stage.row('permanent-in-commit', async () => {
  await stage.engine('a', {
    commit: async () => {
      throw new Permanent('this note cannot be completed')
    },
  })
  return stage.enqueue()
})

stage.row('already-done', async () => {
  await stage.engine('a', { prepare: async () => alreadyDone({ found: true }) })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ result: { found: true } })
  return id
})

stage.row('known-answer', async () => {
  await stage.engine('a', { prepare: async (_context, prepared) => knownAnswer(prepared, 'found') })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ text: 'found' })
  return id
})

stage.row('known-answer-rejected', async () => {
  await stage.engine('a', {
    prepare: async (_context, prepared) => knownAnswer(prepared, 'found'),
    commit: async () => {
      throw new RejectedAnswer('what was found is of no use')
    },
  })
  return stage.enqueue({ maxAttempts: 3 })
})
