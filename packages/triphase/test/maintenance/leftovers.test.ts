import { expect, test } from 'vitest'
import { defineStagedTask, unchecked } from '../../src/index.ts'
import { finishJobs } from '../../src/store/ack.ts'
import { onEnginePool } from '../../src/store/insert.ts'
import { deleteLeftovers } from '../../src/store/leftovers.ts'
import { type Scene, sceneOf } from '../liveness/scene.ts'
import { ackOf, insertClaimed } from '../support/store-jobs.ts'

const WEEK_MS = 7 * 86_400_000

/** Stores answers for jobs that may or may not be live, so old. */
async function answers(scene: Scene, ages: Record<string, string>): Promise<void> {
  for (const [jobId, age] of Object.entries(ages))
    await scene.rows(
      `INSERT INTO triphase.answer (job_id, claim_no, step, answer, stored_at)
       VALUES ($1, 1, 'call', '"paid"', clock_timestamp() - $2::interval), ($1, 1, 'step', '"paid"', clock_timestamp() - $2::interval)`,
      [jobId, age],
    )
}

async function answered(scene: Scene): Promise<string[]> {
  const rows = await scene.rows<{ id: string }>(
    `SELECT DISTINCT job_id::text AS id FROM triphase.answer ORDER BY 1`,
  )
  return rows.map(({ id }) => id)
}

async function keys(scene: Scene): Promise<string[]> {
  const rows = await scene.rows<{ key: string }>(`SELECT key FROM triphase.job_unique ORDER BY 1`)
  return rows.map(({ key }) => key)
}

const task = defineStagedTask({
  name: 'task',
  input: unchecked<unknown>(),
  prepare: async () => ({}),
  call: async () => 'answer',
  commit: async ({ input }) => (input === 'fails' ? Promise.reject(new Error('no')) : 'done'),
})

test('answers of jobs that are gone are deleted when they are older than the retention; those of live jobs stay', async (context) => {
  const scene = await sceneOf(context)
  const { id: live } = await scene.engine().enqueue(task, {})
  await answers(scene, { [live]: '1 year', '900000001': '8 days', '900000002': '6 days' })
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(2)
  expect(await answered(scene)).toEqual([live, '900000002'].sort())
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(0)
})

test('answers are kept as long as history has their job, however long before its end they were stored', async (context) => {
  const scene = await sceneOf(context)
  const { database } = scene.schema
  const job = await insertClaimed(database)
  await answers(scene, { [job.id]: '8 days' })
  await finishJobs(onEnginePool(database), [ackOf(job, 'discarded')])
  expect(await deleteLeftovers(database, WEEK_MS)).toBe(0)
  expect(await deleteLeftovers(database, 0)).toBe(0)
  await scene.rows(`DELETE FROM triphase.job_history`)
  expect(await deleteLeftovers(database, WEEK_MS)).toBe(2)
})

test('answers are deleted with the completion of their job, and kept with a job that was discarded', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine({ tasks: [task], queues: { default: 2 } })
  await engine.start()
  await engine.enqueue(task, 'succeeds')
  const { id } = await engine.enqueue(task, 'fails', { maxAttempts: 1 })
  await scene.allDone()
  expect(await answered(scene)).toEqual([id])
})

test('unique keys are deleted when their time is over and their job is gone', async (context) => {
  const scene = await sceneOf(context)
  const engine = scene.engine()
  await engine.enqueue(task, {}, { uniqueKey: 'live', uniqueFor: '1ms' })
  for (const [uniqueKey, uniqueFor] of [
    ['over', '1ms'],
    ['not over', '1h'],
  ] as const) {
    const { id } = await engine.enqueue(task, {}, { uniqueKey, uniqueFor, delay: '1h' })
    await scene.rows(`DELETE FROM triphase.job WHERE id = $1`, [id])
  }
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(1)
  expect(await keys(scene)).toEqual(['live', 'not over'])
})

test('a heap of leftovers goes in steps, none of which deletes more than 5,000 rows', async (context) => {
  const scene = await sceneOf(context)
  await scene.rows(`INSERT INTO triphase.answer (job_id, claim_no, step, answer, stored_at)
    SELECT 900000000 + n, 1, 'call', '"paid"', clock_timestamp() - interval '8 days' FROM generate_series(1, 7000) n`)
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(5_000)
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(2_000)
})

test('runs of sweeps that have long been over are deleted, but the latest of each sweep', async (context) => {
  const scene = await sceneOf(context)
  const run = async (sweep: string, state: string, age: string) => {
    const over = ['completed', 'cancelled', 'failed'].includes(state)
    const [row] = await scene.rows<{ id: string }>(
      `INSERT INTO triphase.sweep_run (sweep, queue, concurrency, steward_job, state, finished_at)
       VALUES ($1, 'default', 1, 0, $2, CASE WHEN $3 THEN clock_timestamp() - $4::interval END) RETURNING id::text`,
      [sweep, state, over, age],
    )
    return row!.id
  }
  const page = (runId: string, jobId: string) =>
    scene.rows(`INSERT INTO triphase.sweep_page (run_id, job_id, to_key) VALUES ($1, $2, '["1"]')`, [
      runId,
      jobId,
    ])
  const { id: live } = await scene.engine().enqueue(task, {})
  const ids = {
    old: await run('one', 'completed', '9 days'),
    stillWorkedOn: await run('one', 'cancelled', '9 days'),
    young: await run('one', 'failed', '6 days'),
    latest: await run('one', 'completed', '8 days'),
    alone: await run('two', 'completed', '90 days'),
    before: await run('three', 'cancelled', '8 days'),
    open: await run('three', 'paused', '9 days'),
  }
  await page(ids.before, '900000001')
  await page(ids.stillWorkedOn, live)
  expect(await deleteLeftovers(scene.schema.database, WEEK_MS)).toBe(2)
  const left = await scene.rows<{ id: string }>(
    'SELECT id::text FROM triphase.sweep_run ORDER BY sweep_run.id',
  )
  expect(left.map(({ id }) => id)).toEqual([ids.stillWorkedOn, ids.young, ids.latest, ids.alone, ids.open])
  expect(await scene.rows('SELECT run_id::text AS run FROM triphase.sweep_page')).toEqual([
    { run: ids.stillWorkedOn },
  ])
})
