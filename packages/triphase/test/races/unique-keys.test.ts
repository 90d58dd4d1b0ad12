import { describe, expect, test } from 'vitest'
import { finishJobs } from '../../src/store/ack.ts'
import { cancelJob } from '../../src/store/cancel.ts'
import { insertUniqueJobs } from '../../src/store/insert.ts'
import { retryJob } from '../../src/store/retry-job.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, claim, insertJob, insertProcess, newJob, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

const keyed = (uniqueKey: string, uniqueForMs: number | null = null) => newJob({ uniqueKey, uniqueForMs })

async function liveJobs(): Promise<unknown[]> {
  return bench.schema.database.query('SELECT id FROM triphase.job ORDER BY id')
}

async function pair() {
  return Promise.all([sessions.open(), sessions.open()])
}

describe('two enqueues of one key', () => {
  // With 1 ms the key's own period is over by the time that the second one gets to it.
  test.each([[null], [1], [3_600_000]])(
    'with uniqueFor %s: the second waits, and finds the first',
    async (forMs) => {
      const [a, b] = await pair()
      await a.begin()
      const [first] = await insertUniqueJobs(a.run, [keyed('k', forMs)])
      const second = insertUniqueJobs(b.run, [keyed('k', forMs)])
      await sessions.waits(b, a)
      await a.commit()
      expect(await second).toEqual([{ id: first!.id, created: false }])
      expect(await liveJobs()).toHaveLength(1)
    },
  )

  test('the first rolls back: the second is written', async () => {
    const [a, b] = await pair()
    await a.begin()
    const [first] = await insertUniqueJobs(a.run, [keyed('k')])
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.rollback()
    expect(await second).toMatchObject([{ created: true }])
    expect(await liveJobs()).toEqual([{ id: (await second)[0]!.id }])
    expect((await second)[0]!.id).not.toBe(first!.id)
  })

  test('of many keys in opposite orders: one waits for the other, and they do not deadlock', async () => {
    const [a, b] = await pair()
    await a.begin()
    const keys = ['b', 'd', 'a', 'c']
    const first = await insertUniqueJobs(
      a.run,
      keys.map((key) => keyed(key)),
    )
    const second = insertUniqueJobs(
      b.run,
      ['e', ...keys.toReversed()].map((key) => keyed(key)),
    )
    await sessions.waits(b, a)
    await a.commit()
    const found = await second
    expect(found.map(({ created }) => created)).toEqual([true, false, false, false, false])
    expect(found.slice(1).map(({ id }) => id)).toEqual(first.toReversed().map(({ id }) => id))
    expect(await liveJobs()).toHaveLength(5)
  })

  test('of many keys, in any order, at the same moment: nobody deadlocks, and each key has one job', async () => {
    const [a, b] = await pair()
    for (let round = 0; round < 20; round++) {
      const keys = Array.from({ length: 60 }, (_, n) => `${round} ${(n * 37) % 60}`)
      const inserted = await Promise.all([
        insertUniqueJobs(
          a.run,
          keys.map((key) => keyed(key)),
        ),
        insertUniqueJobs(
          b.run,
          keys.toReversed().map((key) => keyed(key)),
        ),
      ])
      expect(inserted.flat().filter(({ created }) => created)).toHaveLength(60)
    }
    expect(await liveJobs()).toHaveLength(20 * 60)
  })

  test('many at the same moment: one is written', async () => {
    const open = await Promise.all(Array.from({ length: 6 }, () => sessions.open()))
    for (let round = 0; round < 30; round++) {
      const inserted = await Promise.all(
        open.map(({ run }) => insertUniqueJobs(run, [keyed(`round ${round}`)])),
      )
      expect(inserted.flat().filter(({ created }) => created)).toHaveLength(1)
      expect(new Set(inserted.flat().map(({ id }) => id)).size).toBe(1)
    }
    expect(await liveJobs()).toHaveLength(30)
  })
})

describe('an enqueue and the end of the job that holds its key', () => {
  test('waits for the ack, and is written when it has committed', async () => {
    const { database } = bench.schema
    await insertJob(database, { uniqueKey: 'k' })
    const [job] = await claim(database, await insertProcess(database))
    const [a, b] = await pair()
    await a.begin()
    await finishJobs(a.run, [ackOf(job!, 'completed')])
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toMatchObject([{ created: true }])
    expect(await liveJobs()).toEqual([{ id: (await second)[0]!.id }])
  })

  test('and finds the job where the ack rolls back', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { uniqueKey: 'k' })
    const [job] = await claim(database, await insertProcess(database))
    const [a, b] = await pair()
    await a.begin()
    await finishJobs(a.run, [ackOf(job!, 'completed')])
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.rollback()
    expect(await second).toEqual([{ id, created: false }])
  })

  test('waits for a cancel', async () => {
    await insertJob(bench.schema.database, { uniqueKey: 'k' })
    const [a, b] = await pair()
    await a.begin()
    const [held] = await liveJobs()
    expect(await cancelJob(a.database, (held as { id: string }).id, '{}')).toBe('cancelled')
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toMatchObject([{ created: true }])
  })

  test('a key that is taken over by two at once goes to one of them', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { uniqueKey: 'k', uniqueForMs: 3_600_000 })
    await cancelJob(database, id, '{}')
    await database.query(`UPDATE triphase.job_unique SET expires_at = clock_timestamp() - interval '1 s'`)
    const [a, b] = await pair()
    await a.begin()
    const [first] = await insertUniqueJobs(a.run, [keyed('k')])
    expect(first).toMatchObject({ created: true })
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toMatchObject([{ created: false }])
    expect(await liveJobs()).toEqual([{ id: first!.id }])
  })
})

describe('a discarded job that is brought back', () => {
  async function discardedWithKey(): Promise<string> {
    const { database } = bench.schema
    const id = await insertJob(database, { uniqueKey: 'k' })
    await cancelJob(database, id, '{}')
    return id
  }

  test('waits for an enqueue of its key, and stays in history', async () => {
    const id = await discardedWithKey()
    const [a, b] = await pair()
    await a.begin()
    const [taken] = await insertUniqueJobs(a.run, [keyed('k')])
    const back = retryJob(b.database, id)
    await sessions.waits(b, a)
    await a.commit()
    expect(await back).toBeNull()
    expect(await liveJobs()).toEqual([{ id: taken!.id }])
    expect(await rowsOf(bench.schema.database, id)).toMatchObject([{ place: 'history', state: 'cancelled' }])
  })

  test('first, an enqueue of its key waits and finds it', async () => {
    const id = await discardedWithKey()
    const [a, b] = await pair()
    await a.begin()
    expect(await retryJob(a.database, id)).toBe('queue')
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toEqual([{ id, created: false }])
    expect(await liveJobs()).toEqual([{ id }])
  })

  test('with a key that outlived it: an enqueue waits and finds it', async () => {
    const { database } = bench.schema
    const id = await insertJob(database, { uniqueKey: 'k', uniqueForMs: 3_600_000 })
    await cancelJob(database, id, '{}')
    await database.query(`UPDATE triphase.job_unique SET expires_at = clock_timestamp() - interval '1 s'`)
    const [a, b] = await pair()
    await a.begin()
    expect(await retryJob(a.database, id)).toBe('queue')
    const second = insertUniqueJobs(b.run, [keyed('k')])
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toEqual([{ id, created: false }])
    expect(await liveJobs()).toEqual([{ id }])
  })

  test('waits for another of its key that is brought back, and stays in history', async () => {
    const { database } = bench.schema
    const earlier = await discardedWithKey()
    const later = await insertJob(database, { uniqueKey: 'k', uniqueForMs: 3_600_000 })
    await cancelJob(database, later, '{}')
    await database.query(`UPDATE triphase.job_unique SET expires_at = clock_timestamp() - interval '1 s'`)
    const [a, b] = await pair()
    await a.begin()
    expect(await retryJob(a.database, later)).toBe('queue')
    const back = retryJob(b.database, earlier)
    await sessions.waits(b, a)
    await a.commit()
    expect(await back).toBeNull()
    expect(await liveJobs()).toEqual([{ id: later }])
  })

  test('by two at once comes back once', async () => {
    const id = await discardedWithKey()
    const [a, b] = await pair()
    await a.begin()
    await retryJob(a.database, id)
    const second = retryJob(b.database, id)
    await sessions.waits(b, a)
    await a.commit()
    await second
    expect(await rowsOf(bench.schema.database, id)).toMatchObject([
      { place: 'job', state: 'available', claimNo: 1 },
    ])
  })
})
