import { expect } from 'vitest'
import { z } from 'zod'
import { RejectedAnswer } from '../../src/index.ts'
import { oddAnswer } from '../support/counting-api.ts'
import { callInSteps, pay } from './note-task.ts'
import { useStage } from './stage.ts'

const stage = useStage()

async function rejectsGarbage({ answer }: { answer: unknown }): Promise<void> {
  if (JSON.stringify(answer).includes('garbage')) throw new RejectedAnswer('the model answered garbage')
}

const GARBAGE = { kind: 'answer', answer: 'garbage' } as const

stage.row('rejected-in-commit', async () => {
  stage.api.behave(GARBAGE, { times: 1 })
  await stage.engine('a', { commit: rejectsGarbage })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(await stage.note()).toMatchObject({ text: 'answer to note' })
  return id
})

stage.row('rejected-in-commit-always', async () => {
  stage.api.behave(GARBAGE)
  await stage.engine('a', { commit: rejectsGarbage })
  return stage.enqueue({ maxAttempts: 3 })
})

stage.row('rejected-then-retried-by-hand', async () => {
  stage.api.behave(GARBAGE, { times: 1 })
  await stage.engine('a', { commit: rejectsGarbage })
  const id = await stage.enqueue({ maxAttempts: 1 })
  await stage.seen('a', 'job:discarded')
  expect(await stage.client.retry(id)).toBe(true)
  return id
})

stage.row('rejected-by-schema', async () => {
  stage.api.behave({ kind: 'answer', answer: 17 }, { times: 1 })
  await stage.engine('a', { answer: z.string() })
  const id = await stage.enqueue()
  await stage.ended(id)
  const [first] = await stage.client.attempts(id)
  expect(first).toMatchObject({ outcome: 'retried', error: { name: 'RejectedAnswer' } })
  return id
})

stage.row('rejected-one-step', async () => {
  const second = 'the "second", \\2'
  stage.api.behave(GARBAGE, { key: second, times: 1 })
  await stage.engine('a', {
    call: callInSteps(stage.api.url, 'first', second),
    commit: async ({ answer }) => {
      if (JSON.stringify(answer).includes('garbage')) throw new RejectedAnswer('garbage', { steps: [second] })
    },
  })
  const id = await stage.enqueue({ maxAttempts: 3 })
  await stage.ended(id)
  expect([stage.api.callsFor('first'), stage.api.callsFor(second)]).toEqual([1, 2])
  return id
})

stage.row('odd-characters', async () => {
  stage.api.behave({ kind: 'odd-characters' })
  await stage.engine('a', { commit: async ({ answer }) => answer })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ result: oddAnswer })
  expect(await stage.note()).toMatchObject({ text: oddAnswer })
  return id
})

stage.row('odd-characters-in-text', async () => {
  stage.api.behave({ kind: 'odd-characters' })
  await stage.engine('a', {
    commit: ({ tx, answer }) => tx.query(`UPDATE ${stage.table} SET key = $1`, [answer]),
  })
  return stage.enqueue({ maxAttempts: 2 })
})

stage.row('answer-too-large', async () => {
  await stage.engine('a', {}, { maxAnswerBytes: 8 })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ error: { code: 'ANSWER_TOO_LARGE' } })
  return id
})

stage.row('answer-not-plain', async () => {
  const answers: unknown[] = []
  await stage.engine('a', {
    call: async (context) => ({
      at: new Date(0),
      text: await pay(stage.api.url, 'note', context),
      none: undefined,
    }),
    commit: async ({ answer, job }) => {
      answers.push(answer)
      if (job.attempt === 1) throw new Error('the first commit fails')
    },
  })
  const id = await stage.enqueue()
  await stage.ended(id)
  const plain = { at: '1970-01-01T00:00:00.000Z', text: 'answer to note' }
  expect(answers).toStrictEqual([plain, plain])
  return id
})

stage.row('answer-not-json', async () => {
  await stage.engine('a', {
    call: async (context) => ({ text: await pay(stage.api.url, 'note', context), tokens: 17n }),
  })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ error: { code: 'NOT_JSON' } })
  return id
})

stage.row('answer-refused', async () => {
  stage.at('a', 'store answer', 'error', { sqlstate: '54001', message: 'stack depth limit exceeded' })
  await stage.engine('a')
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ error: { code: 'WRITE_REFUSED' } })
  return id
})

stage.row('result-not-json', async () => {
  await stage.engine('a', { commit: async () => ({ tokens: 17n }) })
  const id = await stage.enqueue()
  expect(await stage.ended(id)).toMatchObject({ error: { code: 'NOT_JSON' } })
  expect(await stage.storedSteps(id)).toEqual(['call'])
  return id
})

/** As on a day for which nobody has made partitions yet. */
async function dropPartitions(table: string): Promise<void> {
  const partitions = await stage.sql(
    `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::regclass`,
    [`${stage.schema}.${table}`],
  )
  await stage.sql(`DROP TABLE ${partitions.map(({ name }) => name).join()}`)
}

stage.row('no-partition-at-commit', async () => {
  const call = stage.api.hold()
  await stage.engine('a')
  const id = await stage.enqueue()
  await call.arrived
  await dropPartitions('job_history')
  await call.release()
  return id
})

stage.row('no-partition-at-failure', async () => {
  const call = stage.api.hold()
  await stage.engine('a')
  const id = await stage.enqueue()
  await call.arrived
  await dropPartitions('job_attempt')
  await call.release({ kind: 'error' })
  return id
})
