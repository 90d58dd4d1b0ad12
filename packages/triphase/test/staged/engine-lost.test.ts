import { setTimeout as delay } from 'node:timers/promises'
import { expect } from 'vitest'
import { Permanent } from '../../src/index.ts'
import type { Fault } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { callInSteps, type NoteHooks } from './note-task.ts'
import { useStage } from './stage.ts'
import type { Statement } from './statements.ts'

const stage = useStage()

async function lostAt(statement: Statement, fault: Fault, hooks: NoteHooks = {}): Promise<string> {
  const lost = stage.at('a', statement, fault)
  await stage.engine('a', hooks)
  const id = await stage.enqueue()
  await lost.hit
  await stage.ended(id)
  return id
}

/** Its first commit fails, so the second attempt has to look for the answer. */
const FAILS_ONCE: NoteHooks = {
  commit: async ({ job }) => {
    if (job.attempt === 1) throw new Error('the first commit fails')
  },
}

const FAILS_FOR_GOOD: NoteHooks = {
  commit: async () => {
    throw new Permanent('no commit can work')
  },
}

stage.row('engine-claim-unsent', () => lostAt('claim', 'cut-before'))

stage.row('engine-claim-unanswered', async () => {
  const lost = stage.at('a', 'claim', 'cut-after')
  const id = await stage.enqueue()
  await stage.engine('a')
  await lost.hit
  expect(await stage.job(id)).toMatchObject({ state: 'executing', attempt: 1 })
  // The reply to a claim is waited for no longer than 15 s.
  await stage.sql(`UPDATE ${stage.schema}.job SET claimed_at = claimed_at - interval '1 minute'`)
  expect(await stage.seen('a', 'jobs:strays-returned')).toEqual({ jobIds: [id] })
  return id
})

stage.row('engine-lookup-unsent', () => lostAt('look up answers', 'cut-before', FAILS_ONCE))

stage.row('engine-store-unsent', () => lostAt('store answer', 'cut-before'))

stage.row('engine-store-unanswered', async () => {
  const id = await lostAt('store answer', 'cut-after')
  expect(stage.events('a', 'job:answer-stored')).toMatchObject([{ step: 'call', first: false }])
  return id
})

stage.row('engine-away-at-store', async () => {
  const call = stage.api.hold()
  await stage.engine('a')
  const id = await stage.enqueue()
  await call.arrived
  stage.proxy.refuse(true)
  stage.proxy.cutAll()
  await call.release()
  await eventually(() => expect(failedStores().length).toBeGreaterThanOrEqual(3))
  stage.proxy.refuse(false)
  return id
})

stage.row('engine-away-at-store-past-timeout', async () => {
  const store = stage.at('a', 'store answer', 'hold-before')
  const timedOut: boolean[] = []
  const commit = async ({ signal }: { signal: AbortSignal }) => timedOut.push(signal.aborted)
  await stage.engine('a', { timeout: '1s', commit }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await store.hit
  stage.proxy.refuse(true)
  stage.proxy.cutAll()
  await delay(1_200)
  stage.proxy.refuse(false)
  await stage.ended(id)
  expect(timedOut).toEqual([false])
  return id
})

stage.row('engine-away-at-step-past-timeout', async () => {
  const store = stage.at('a', 'store answer', 'hold-before')
  const late = Promise.withResolvers<void>()
  const prepare = async ({ signal }: { signal: AbortSignal }) => {
    signal.addEventListener('abort', () => late.resolve())
  }
  const call = callInSteps(stage.api.url, 'one', 'two')
  await stage.engine('a', { timeout: '1s', prepare, call }, { abortGrace: '50ms' })
  const id = await stage.enqueue()
  await store.hit
  stage.proxy.refuse(true)
  stage.proxy.cutAll()
  await late.promise
  await delay(200)
  stage.proxy.refuse(false)
  await stage.ended(id)
  expect([stage.api.callsFor('one'), stage.api.callsFor('two')]).toEqual([1, 1])
  return id
})

function failedStores(): object[] {
  return stage
    .events('a', 'statement:failed')
    .filter(({ statement }) => statement === 'store answer (no connection)')
}

stage.row('engine-beat-unsent', () => beatLost('cut-before'))

stage.row('engine-beat-unanswered', () => beatLost('cut-after'))

async function beatLost(fault: Fault): Promise<string> {
  const call = stage.api.hold()
  await stage.engine('a')
  const id = await stage.enqueue()
  await call.arrived
  const lost = stage.at('a', 'beat', fault, { times: 3 })
  await eventually(() => expect(lost.hits).toBe(3))
  await stage.seen('a', 'heartbeat:failed', ({ failures }) => failures === 3)
  const beaten = stage.at('a', 'beat', 'hold-reply')
  await beaten.hit
  beaten.release()
  await call.release()
  await stage.ended(id)
  expect(stage.events('a', 'process:lost')).toEqual([])
  return id
}

stage.row('engine-failure-unsent', () => failureLost('cut-before'))

stage.row('engine-failure-unanswered', () => failureLost('cut-after'))

/** One failure is counted once. */
async function failureLost(fault: Fault): Promise<string> {
  stage.api.behave({ kind: 'error' }, { times: 1 })
  const id = await lostAt('ack failure', fault)
  const outcomes = (await stage.client.attempts(id)).map(({ outcome }) => outcome)
  expect(outcomes).toEqual(['retried', 'completed'])
  return id
}

stage.row('engine-discard-unsent', () => lostAt('finish', 'cut-before', FAILS_FOR_GOOD))

stage.row('engine-discard-unanswered', async () => {
  const id = await lostAt('finish', 'cut-after', FAILS_FOR_GOOD)
  await stage.seen('a', 'job:discarded')
  return id
})
