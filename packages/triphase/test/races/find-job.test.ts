import { expect, test } from 'vitest'
import { finishJobs } from '../../src/store/ack.ts'
import { findJob } from '../../src/store/inspect.ts'
import { retryJob } from '../../src/store/retry-job.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, insertClaimed } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

test('a job that finishes while it is looked for is found, live or finished', async () => {
  const { database } = bench.schema
  const [a, b] = await Promise.all([sessions.open(), sessions.open()])
  const seen = new Set<string | undefined>()
  for (let round = 0; round < 60; round++) {
    const job = await insertClaimed(database)
    const looking = async () => {
      for (let look = 0; look < 4; look++) seen.add((await findJob(b.database, job.id))?.state)
    }
    await Promise.all([looking(), finishJobs(a.run, [ackOf(job, 'completed')])])
  }
  expect([...seen].toSorted()).toEqual(['completed', 'executing'])
})

test('a job that is brought back while it is looked for is found, finished or live', async () => {
  const { database } = bench.schema
  const [a, b] = await Promise.all([sessions.open(), sessions.open()])
  const seen = new Set<string | undefined>()
  for (let round = 0; round < 60; round++) {
    const job = await insertClaimed(database)
    await finishJobs(a.run, [ackOf(job, 'discarded')])
    const looking = async () => {
      for (let look = 0; look < 4; look++) seen.add((await findJob(b.database, job.id))?.state)
    }
    await Promise.all([looking(), retryJob(a.database, job.id)])
  }
  expect([...seen].toSorted()).toEqual(['available', 'discarded'])
})
