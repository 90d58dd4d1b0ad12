import fc from 'fast-check'
import { expect, test } from 'vitest'
import { insertJobs, insertUniqueJobs, type NewJob, onEnginePool } from '../../src/store/insert.ts'
import { useEngines } from '../support/engines.ts'
import { newJob } from '../support/store-jobs.ts'

const bench = useEngines()

const text = fc.constantFrom(
  'a',
  'b',
  'with space',
  'ä',
  '"quoted"',
  'back\\slash',
  '{braces}',
  'null',
  'NULL',
)
const DETAILS = fc.record({
  task: fc.constantFrom('one', 'two'),
  queue: fc.constantFrom('default', 'slow'),
  priority: fc.integer({ min: 0, max: 3 }),
  input: fc.jsonValue().map((value) => JSON.stringify(value)),
  maxAttempts: fc.constantFrom(1, 10),
  maxCrashes: fc.constantFrom(1, 3),
  timeoutMs: fc.option(fc.constantFrom(1_000, 2_000)),
  delayMs: fc.constantFrom(0, 3_600_000),
  runAt: fc.option(
    fc.constantFrom(new Date('2001-02-03T04:05:06.789Z'), new Date('2101-02-03T04:05:06.789Z')),
  ),
  tags: fc.array(text, { maxLength: 2 }),
  traceparent: fc.option(fc.constantFrom('00-1', '00-2')),
})

/** Batches in which all jobs agree in some columns, and in which they differ. */
const BATCH = fc
  .tuple(
    DETAILS,
    fc.array(fc.constantFrom(...(Object.keys(newJob()) as (keyof NewJob)[]))),
    fc.array(DETAILS, { minLength: 1, maxLength: 8 }),
  )
  .map(([common, columns, jobs]) => jobs.map((job) => newJob({ ...job, ...only(common, columns) })))

function only(job: Partial<NewJob>, columns: readonly (keyof NewJob)[]): Partial<NewJob> {
  return Object.fromEntries(Object.entries(job).filter(([name]) => columns.includes(name as keyof NewJob)))
}

async function written(ids: readonly string[]) {
  const rows = await bench.schema.database.query<Record<string, unknown> & { id: string }>(
    `SELECT id, task, queue, priority, input::text, max_attempts, max_crashes, timeout_ms, state, tags, traceparent, unique_key,
       run_at, round(extract(epoch FROM run_at - inserted_at))::float8 AS seconds
     FROM triphase.job WHERE id = ANY ($1::bigint[])`,
    [ids],
  )
  return ids.map((id) => rows.find((row) => row.id === id))
}

function expected(job: NewJob) {
  const later = job.runAt ? job.runAt.getTime() > Date.now() : job.delayMs > 0
  return {
    task: job.task,
    queue: job.queue,
    priority: job.priority,
    input: job.input,
    max_attempts: job.maxAttempts,
    max_crashes: job.maxCrashes,
    timeout_ms: job.timeoutMs,
    state: later ? 'scheduled' : 'available',
    tags: job.tags.length > 0 ? job.tags : null,
    traceparent: job.traceparent,
    unique_key: job.uniqueKey,
    ...(job.runAt ? { run_at: job.runAt } : { seconds: job.delayMs / 1_000 }),
  }
}

test('every job is written as it was given, whatever the others in the batch are', async () => {
  const run = onEnginePool(bench.schema.database)
  await fc.assert(
    fc.asyncProperty(BATCH, async (jobs) => {
      const inserted = await insertJobs(run, jobs)
      expect(await written(inserted.map(({ id }) => id))).toMatchObject(jobs.map(expected))
    }),
    { numRuns: 60 },
  )
})

test('and so is every job with a unique key', async () => {
  const run = onEnginePool(bench.schema.database)
  let number = 0
  await fc.assert(
    fc.asyncProperty(BATCH, async (jobs) => {
      const keyed = jobs.map((job) => ({ ...job, uniqueKey: `key ${number++}` }))
      const inserted = await insertUniqueJobs(run, keyed)
      expect(await written(inserted.map(({ id }) => id))).toMatchObject(keyed.map(expected))
    }),
    { numRuns: 60 },
  )
})
