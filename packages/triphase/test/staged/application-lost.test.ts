import pg from 'pg'
import { expect } from 'vitest'
import { pgTransactor } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import type { Fault, FaultOptions } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { pay } from './note-task.ts'
import { useStage } from './stage.ts'
import type { Statement } from './statements.ts'

const stage = useStage()

async function lostAt(statement: Statement, fault: Fault, options?: FaultOptions): Promise<string> {
  const lost = stage.at('a', statement, fault, options)
  await stage.engine('a')
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(lost.hits).toBe(1)
  return id
}

stage.row('app-at-begin', () => lostAt('begin', 'cut-before'))

stage.row('app-in-prepare', () => lostAt('prepare writes', 'cut-after'))

stage.row('app-prepare-commit-unsent', async () => {
  const id = await lostAt('commit', 'cut-before')
  expect(await stage.note()).toMatchObject({ prepares: 1 })
  return id
})

stage.row('app-prepare-commit-unanswered', async () => {
  const id = await lostAt('commit', 'cut-after')
  expect(await stage.note()).toMatchObject({ prepares: 2 })
  return id
})

stage.row('app-in-call', async () => {
  const lost = stage.at('a', 'query in call', 'cut-before')
  await stage.engine('a', {
    call: async (context) => {
      const answer = await pay(stage.api.url, 'note', context)
      await context.query(`SELECT 'in call'`)
      return answer
    },
  })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(lost.hits).toBe(1)
  return id
})

stage.row('app-in-call-after-step', async () => {
  const lost = stage.at('a', 'query in call', 'cut-before')
  await stage.engine('a', {
    call: async (context) => {
      const answer = await context.step('pay', () => pay(stage.api.url, 'note', context))
      await context.query(`SELECT 'in call'`)
      return answer
    },
  })
  const id = await stage.enqueue()
  await stage.ended(id)
  expect(lost.hits).toBe(1)
  return id
})

stage.row('app-in-commit', () => lostAt('commit writes', 'cut-after'))

stage.row('app-ack-unsent', () => lostAt('ack', 'cut-before'))

stage.row('app-ack-unanswered', () => lostAt('ack', 'cut-after'))

stage.row('app-commit-unsent', () => lostAt('commit', 'cut-before', { skip: 1 }))

stage.row('app-commit-unanswered', async () => {
  const id = await lostAt('commit', 'cut-after', { skip: 1 })
  expect(await stage.seen('a', 'job:completed')).toMatchObject({ jobId: id, claimNo: 1 })
  return id
})

stage.row('app-commit-late', async () => {
  const pool = new pg.Pool({
    connectionString: stage.proxy.url(testUrl()),
    application_name: stage.named('a'),
  })
  pool.on('error', () => {})
  const streams: { destroy(): void }[] = []
  pool.on('connect', (client) => streams.push((client as unknown as Connected).connection.stream))
  const commit = stage.at('a', 'commit', 'hold-before', { skip: 1 })
  await stage.engine('a', {}, { transactor: pgTransactor(pool) })
  const id = await stage.enqueue()
  await commit.hit
  for (const stream of streams) stream.destroy()
  await eventually(async () => (await waitingForLocks()).length === 1)
  commit.release()
  expect(await stage.seen('a', 'job:completed')).toMatchObject({ jobId: id, claimNo: 1 })
  await pool.end()
  return id
})

interface Connected {
  connection: { stream: { destroy(): void } }
}

/** The engine asks history only when the transaction that may still commit has let go of the job. */
function waitingForLocks(): Promise<object[]> {
  return stage.sql(`SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'`, [
    `${stage.named('a')}-engine`,
  ])
}

stage.row('app-commit-unanswered-database-away', async () => {
  const commit = stage.at('a', 'commit', 'cut-after', { skip: 1 })
  await stage.engine('a')
  const id = await stage.enqueue()
  await commit.hit
  stage.proxy.refuse(true)
  stage.proxy.cutAll()
  await stage.seen('a', 'statement:failed', ({ statement }) => statement.startsWith('find ack'))
  stage.proxy.refuse(false)
  return id
})
