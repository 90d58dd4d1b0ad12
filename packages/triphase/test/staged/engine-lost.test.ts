import { expect } from 'vitest'
import { eventually } from '../support/processes.ts'
import type { Fault } from '../support/fault-proxy.ts'
import type { NoteHooks } from './note-task.ts'
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

/** The first commit fails, so that the second attempt has to look for the answer. */
function failsOnce(): NoteHooks {
  return {
    commit: async ({ job }) => {
      if (job.attempt === 1) throw new Error('commit fails')
    },
  }
}

stage.row('engine-claim-unsent', () => lostAt('claim', 'cut-before'))

stage.row('engine-claim-unanswered', async () => {
  const lost = stage.at('a', 'claim', 'cut-after')
  const id = await stage.enqueue()
  await stage.engine('a')
  await lost.hit
  expect(await stage.job(id)).toMatchObject({ state: 'executing', attempt: 1 })
  // A claim's reply is given up after 45 s.
  await stage.sql(`UPDATE ${stage.schema}.job SET claimed_at = claimed_at - interval '1 minute'`)
  expect(await stage.seen('a', 'jobs:strays-returned')).toEqual({ jobIds: [id] })
  return id
})

stage.row('engine-lookup-unsent', async () => {
  const id = await lostAt('look up answers', 'cut-before', failsOnce())
  expect(stage.events('a', 'statement:failed')).toHaveLength(1)
  return id
})

for (const fault of ['cut-before', 'cut-after'] as const) {
}
