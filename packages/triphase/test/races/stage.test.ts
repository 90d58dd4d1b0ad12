import { expect, test } from 'vitest'
import { stageDueJobs } from '../../src/store/stage.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { insertJob } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

const FAR = new Date(Date.now() + 3_600_000)

test('two stagers: each job is staged by one, and neither waits for the other', async () => {
  const { database } = bench.schema
  for (let n = 0; n < 5; n++) await insertJob(database, { delayMs: 60_000 + n })
  const a = await sessions.open()
  await a.begin()
  expect(await stageDueJobs(a.database, 2, FAR)).toEqual([{ queue: 'queue', count: 2 }])
  expect(await stageDueJobs(database, 10, FAR)).toEqual([{ queue: 'queue', count: 3 }])
  await a.commit()
  expect(await stageDueJobs(database, 10, FAR)).toEqual([])
})

test('what a stager that fails had taken is staged by the next', async () => {
  const { database } = bench.schema
  await insertJob(database, { delayMs: 60_000 })
  const a = await sessions.open()
  await a.begin()
  await stageDueJobs(a.database, 10, FAR)
  expect(await stageDueJobs(database, 10, FAR)).toEqual([])
  await a.rollback()
  expect(await stageDueJobs(database, 10, FAR)).toEqual([{ queue: 'queue', count: 1 }])
})
