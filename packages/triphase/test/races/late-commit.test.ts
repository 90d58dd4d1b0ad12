import pg from 'pg'
import { expect, test } from 'vitest'
import { Marks } from '../../src/queue/marks.ts'
import { claimJobs } from '../../src/store/claim.ts'
import { useEngines } from '../support/engines.ts'
import { insertJob, insertProcess } from '../support/store-jobs.ts'

const bench = useEngines()

/** Claims one job at a time until none is left; returns their ids. */
async function drain(marks: Marks, processId: string): Promise<string[]> {
  const ids: string[] = []
  for (;;) {
    const claim = { queue: 'queue', processId, limit: 1, suspects: 0, marks: marks.next() } as const
    const { jobs, receipt } = await claimJobs(bench.schema.database, claim)
    if (!receipt) return ids
    marks.learn(receipt)
    ids.push(...jobs.map(({ id }) => id))
  }
}

test('a job whose transaction commits late is claimed, though claims have passed its position', async () => {
  const { database, schema, url } = bench.schema
  const processId = await insertProcess(database)
  const marks = new Marks()
  const late = new pg.Client({ connectionString: url })
  await late.connect()
  try {
    await late.query('BEGIN')
    const { rows } = await late.query(
      `INSERT INTO ${schema}.job (queue, task, state, max_attempts, input)
       VALUES ('queue', 'task', 'available', 1, '{}') RETURNING id::text, position::int`,
    )
    for (let round = 0; round < 5; round++) await insertJob(database)
    expect(await drain(marks, processId)).toHaveLength(5)
    for (let round = 0; round < 5; round++) await insertJob(database)
    expect(await drain(marks, processId)).toHaveLength(5)
    expect(marks.next()[2]).toBeLessThan(rows[0].position)
    await late.query('COMMIT')
    expect(await drain(marks, processId)).toEqual([rows[0].id])
  } finally {
    await late.end()
  }
})

test('a transaction that only reads holds no mark back', async () => {
  const { database, url } = bench.schema
  const processId = await insertProcess(database)
  const marks = new Marks()
  const reader = new pg.Client({ connectionString: url })
  await reader.connect()
  try {
    await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
    await reader.query('SELECT count(*) FROM pg_class')
    for (let round = 0; round < 5; round++) await insertJob(database)
    await drain(marks, processId)
    const markAfterAnotherJob = async () => {
      await insertJob(database)
      await drain(marks, processId)
      return marks.next()[2]
    }
    // Writers of other tests on this server hold it back for a while.
    await expect.poll(markAfterAnotherJob, { timeout: 45_000 }).toBeGreaterThan(0)
  } finally {
    await reader.end()
  }
})
