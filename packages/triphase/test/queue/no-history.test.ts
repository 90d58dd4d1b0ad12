import { expect, test } from 'vitest'
import { cancel, defineStagedTask, defineTask, discard, unchecked } from '../../src/index.ts'
import { Acker } from '../../src/queue/acker.ts'
import { ackedClaims, finishJobs } from '../../src/store/ack.ts'
import { Database } from '../../src/store/database.ts'
import { onEnginePool } from '../../src/store/insert.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { testDatabaseUrl, testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { jobIn } from '../support/jobs.ts'
import { ackOf, claim, insertClaimed, insertMany, insertProcess, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()

const OPTIONS = { retention: 0, queues: { default: 5 } }

async function counts(): Promise<Record<string, number>> {
  const [row] = await bench.schema.database.query<Record<string, number>>(`
    SELECT (SELECT count(*) FROM triphase.job)::int AS live,
           (SELECT count(*) FROM triphase.job_history)::int AS finished,
           (SELECT count(*) FROM triphase.job_attempt WHERE outcome = 'completed')::int AS ledgers,
           (SELECT count(*) FROM triphase.answer)::int AS answers`)
  return row!
}

test('completed jobs leave nothing behind, plain or staged', async () => {
  const plain = defineTask({ name: 'plain', input: unchecked<number>(), run: ({ input }) => input })
  const staged = defineStagedTask({
    name: 'staged',
    input: unchecked<number>(),
    prepare: async () => null,
    call: async ({ input }) => input * 2,
    commit: ({ answer }) => answer,
  })
  const engine = bench.engine({ ...OPTIONS, tasks: [plain, staged] })
  await engine.start()
  const completed = engine.telemetry.next('job:completed', ({ task }) => task === 'staged')
  const { id } = await engine.enqueue(plain, 1, { uniqueKey: 'one' })
  await engine.enqueue(staged, 1)
  await completed
  await expect.poll(counts).toEqual({ live: 0, finished: 0, ledgers: 0, answers: 0 })
  expect(await engine.job(id)).toBeNull()
  expect(await engine.enqueue(plain, 2, { uniqueKey: 'one' })).toMatchObject({ created: true })
})

test('what did not complete can be looked at and retried', async () => {
  let calls = 0
  const task = defineTask({
    name: 'task',
    input: unchecked<'cancel' | 'discard'>(),
    run: ({ input }) => {
      calls++
      return input === 'cancel' ? cancel('no') : discard('no')
    },
  })
  const engine = bench.engine({ ...OPTIONS, tasks: [task] })
  await engine.start()
  const cancelled = await engine.enqueue(task, 'cancel')
  const discarded = await engine.enqueue(task, 'discard')
  await jobIn(engine, cancelled.id, 'cancelled')
  await jobIn(engine, discarded.id, 'discarded')
  expect(await engine.retry(discarded.id)).toBe(true)
  await expect.poll(() => calls).toBe(3)
  await jobIn(engine, discarded.id, 'discarded')
})

test('an ack whose reply is lost was written, though nothing tells of it', async () => {
  const { url, schema, database } = bench.schema
  const proxy = await startFaultProxy(serverAddress(url))
  const through = new Database(schema, {
    url: proxy.url(url),
    size: 1,
    applicationName: 'acker',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  })
  const acker = new Acker(through, new Telemetry(), false)
  const job = await insertClaimed(database)
  const lost = proxy.onStatement(/\.finish_jobs\(/, 'cut-after')
  expect(await acker.add(ackOf(job, 'completed'))).toBe('acked')
  expect(lost.hits).toBe(1)
  expect(await rowsOf(database, job.id)).toEqual([])
  await through.end()
  await proxy.close()
})

test('a commit whose reply is lost was written: the job does not run again', async () => {
  const proxy = await startFaultProxy(serverAddress(testUrl()))
  let commits = 0
  const task = defineStagedTask({
    name: 'staged',
    input: unchecked<null>(),
    prepare: async () => null,
    call: async () => 'answer',
    commit: () => {
      commits++
    },
  })
  const engine = bench.engine({
    ...OPTIONS,
    tasks: [task],
    url: proxy.url(testUrl()),
    directUrl: testDatabaseUrl(),
    name: 'forgets',
  })
  await engine.start()
  const lost = proxy.onStatement((sql, name) => name === 'forgets' && /^COMMIT/.test(sql), 'cut-after', {
    skip: 1,
  })
  const completed = engine.telemetry.next('job:completed')
  await engine.enqueue(task, null)
  await completed
  expect(lost.hits).toBe(1)
  expect(commits).toBe(1)
  expect(await counts()).toMatchObject({ live: 0, finished: 0 })
  await engine.stop()
  await proxy.close()
})

test('a claim that another one follows is still lost', async () => {
  const { database } = bench.schema
  await insertMany(database, 3)
  const jobs = await claim(database, await insertProcess(database), 3)
  const [live, kept, gone] = jobs.map(({ id, claimNo }) => ({ jobId: id, claimNo }))
  await database.query('UPDATE triphase.job SET claim_no = claim_no + 1 WHERE id = ANY ($1)', [
    [live!.jobId, kept!.jobId],
  ])
  const again = { id: kept!.jobId, claimNo: kept!.claimNo + 1 }
  await finishJobs(onEnginePool(database), [ackOf(again, 'discarded')], false)
  await finishJobs(
    onEnginePool(database),
    [ackOf({ id: gone!.jobId, claimNo: gone!.claimNo }, 'completed')],
    false,
  )
  expect(await ackedClaims(database, [live!, kept!, gone!], false)).toEqual(new Set([gone!.jobId]))
  expect(await ackedClaims(database, [live!, kept!, gone!])).toEqual(new Set())
})
