import { describe, expect, test } from 'vitest'
import { ackedClaims, finishJobs, rescheduleJobs } from '../../src/store/ack.ts'
import { beatOnce, deregisterProcess } from '../../src/store/heartbeat.ts'
import type { RunStatement } from '../../src/store/insert.ts'
import { rescueOrphans, rescueProcess } from '../../src/store/rescue.ts'
import { useEngines } from '../support/engines.ts'
import { useSessions } from '../support/sessions.ts'
import { ackOf, claim, insertClaimed, insertProcess, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()
const sessions = useSessions(bench)

async function pair() {
  return Promise.all([sessions.open(), sessions.open()])
}

async function processOf(id: string): Promise<string> {
  return (await rowsOf(bench.schema.database, id))[0]!.processId!
}

type Claimed = { id: string; claimNo: number }
const ACKS: [string, (run: RunStatement, job: Claimed) => Promise<Set<string>>, string][] = [
  ['finishes', (run, job) => finishJobs(run, [ackOf(job, 'completed')]), 'completed'],
  ['sends back', (run, job) => rescheduleJobs(run, [ackOf(job, 'retryable', { delayMs: 1e6 })]), 'retryable'],
]

describe.each(ACKS)('an ack that %s', (_how, write, state) => {
  test('waits for a rescue, and finds its claim gone', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const peer = { id: await processOf(job.id), beat: '0' } as never
    const [a, b] = await pair()
    await a.begin()
    expect(await rescueProcess(a.database, peer, '{}')).toMatchObject({ again: [{ id: job.id }] })
    const ack = write(b.run, job)
    await sessions.waits(b, a)
    await a.commit()
    expect(await ack).toEqual(new Set())
    expect(await ackedClaims(database, [{ jobId: job.id, claimNo: job.claimNo }])).toEqual(new Set())
    expect(await rowsOf(database, job.id)).toMatchObject([{ state: 'available', claimNo: 2, crashCount: 1 }])
  })

  test('waits for a rescue that rolls back, and is written', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const [a, b] = await pair()
    await a.begin()
    await rescueProcess(a.database, { id: await processOf(job.id), beat: '0' } as never, '{}')
    const ack = write(b.run, job)
    await sessions.waits(b, a)
    await a.rollback()
    expect(await ack).toEqual(new Set([job.id]))
    expect(await rowsOf(database, job.id)).toMatchObject([{ state, claimNo: 1, crashCount: 0 }])
  })

  test('is passed over by a rescue, which does not wait', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const peer = { id: await processOf(job.id), beat: '0' } as never
    const a = await sessions.open()
    await a.begin()
    await write(a.run, job)
    expect(await rescueProcess(database, peer, '{}')).toEqual({ again: [], discarded: [] })
    await a.commit()
    expect(await rowsOf(database, job.id)).toMatchObject([{ state, claimNo: 1, crashCount: 0 }])
  })

  test('that then rolls back leaves an orphan, which is found', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const a = await sessions.open()
    await a.begin()
    await write(a.run, job)
    await rescueProcess(database, { id: await processOf(job.id), beat: '0' } as never, '{}')
    await a.rollback()
    expect(await rowsOf(database, job.id)).toMatchObject([{ state: 'executing' }])
    expect(await rescueOrphans(database)).toMatchObject([{ id: job.id }])
    expect(await rowsOf(database, job.id)).toMatchObject([{ state: 'available', claimNo: 2 }])
    expect(await write(a.run, job)).toEqual(new Set())
  })

  test('sent again while the first is still under way waits for it, and counts as acked', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const [a, b] = await pair()
    await a.begin()
    await write(a.run, job)
    const again = write(b.run, job)
    await sessions.waits(b, a)
    await a.commit()
    expect(await again).toEqual(new Set())
    expect(await ackedClaims(database, [{ jobId: job.id, claimNo: 1 }])).toEqual(new Set([job.id]))
    expect(await rowsOf(database, job.id)).toHaveLength(1)
  })

  test.each([
    ['commits', 'commit', 1],
    ['rolls back', 'rollback', 0],
  ] as const)('and %s is known to ackedClaims after the wait', async (_what, end, count) => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const [a, b] = await pair()
    await a.begin()
    await write(a.run, job)
    const known = ackedClaims(b.database, [{ jobId: job.id, claimNo: job.claimNo }])
    await sessions.waits(b, a)
    await a[end]()
    expect((await known).size).toBe(count)
  })

  test('is waited for by the end of its process, which then leaves the job alone', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const [a, b] = await pair()
    const process = await processOf(job.id)
    await a.begin()
    await write(a.run, job)
    const ended = deregisterProcess(b.database, process)
    await sessions.waits(b, a)
    await a.commit()
    expect(await ended).toEqual([])
    expect(await rowsOf(database, job.id)).toMatchObject([{ state, claimNo: 1 }])
  })
})

test('a batch is acked up to the claims that a rescue took meanwhile', async () => {
  const { database } = bench.schema
  const mine = [await insertClaimed(database), await insertClaimed(database), await insertClaimed(database)]
  const [a, b] = await pair()
  await a.begin()
  await rescueProcess(a.database, { id: await processOf(mine[1]!.id), beat: '0' } as never, '{}')
  const acked = finishJobs(
    b.run,
    mine.map((job) => ackOf(job, 'completed')),
  )
  await sessions.waits(b, a)
  await a.commit()
  expect(await acked).toEqual(new Set([mine[0]!.id, mine[2]!.id]))
  expect(await rowsOf(database, mine[1]!.id)).toMatchObject([{ state: 'available', claimNo: 2 }])
})

describe('a heartbeat and a rescue', () => {
  const request = (processId: string) => ({
    processId,
    running: [],
    queues: ['queue'],
    stopping: false,
    leaseMs: 10_000,
    strayAfterMs: 45_000,
    lookForStrays: true,
  })

  test('the beat is first: the rescue waits, and lets the process live', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const process = await processOf(job.id)
    const [a, b] = await pair()
    await a.begin()
    expect(await beatOnce(a.database, request(process))).toMatchObject({ alive: true })
    const rescued = rescueProcess(b.database, { id: process, beat: '0' } as never, '{}')
    await sessions.waits(b, a)
    await a.commit()
    expect(await rescued).toBeNull()
    expect(await rowsOf(database, job.id)).toMatchObject([
      { state: 'executing', processId: process, claimNo: 1 },
    ])
  })

  test('the rescue is first: the beat waits, and learns that its process is dead', async () => {
    const { database } = bench.schema
    const job = await insertClaimed(database)
    const process = await processOf(job.id)
    const [a, b] = await pair()
    await a.begin()
    await rescueProcess(a.database, { id: process, beat: '0' } as never, '{}')
    const beat = beatOnce(b.database, request(process))
    await sessions.waits(b, a)
    await a.commit()
    expect(await beat).toMatchObject({ alive: false })
    const again = await beatOnce(database, { ...request(process), running: [{ jobId: job.id, claimNo: 1 }] })
    expect(again.lost).toHaveLength(1)
  })

  test('two rescues: the second waits, and finds nothing to do', async () => {
    const job = await insertClaimed(bench.schema.database)
    const peer = { id: await processOf(job.id), beat: '0' } as never
    const [a, b] = await pair()
    await a.begin()
    await rescueProcess(a.database, peer, '{}')
    const second = rescueProcess(b.database, peer, '{}')
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toBeNull()
    expect(await rowsOf(bench.schema.database, job.id)).toMatchObject([{ claimNo: 2, crashCount: 1 }])
  })

  test.each([
    ['free', false],
    ['expired', true],
  ])('two beats want a lease that is %s: one gets it', async (_how, expired) => {
    const { database } = bench.schema
    if (expired) {
      await database.query(`INSERT INTO triphase.leader (name, process_id, expires_at)
        VALUES ('maintenance', 0, clock_timestamp() - interval '1 second')`)
    }
    const processes = [await insertProcess(database), await insertProcess(database)]
    const [a, b] = await pair()
    await a.begin()
    expect(await beatOnce(a.database, request(processes[0]!))).toMatchObject({ leads: true })
    const second = beatOnce(b.database, request(processes[1]!))
    await sessions.waits(b, a)
    await a.commit()
    expect(await second).toMatchObject({ leads: false, alive: true })
    expect(await beatOnce(database, request(processes[0]!))).toMatchObject({ leads: true })
  })
})

test('a claim made in the name of a process that was removed meanwhile is found', async () => {
  const { database } = bench.schema
  const job = await insertClaimed(database)
  const process = await processOf(job.id)
  const [a, b] = await pair()
  await finishJobs(a.run, [ackOf(job, 'completed')])
  await a.begin()
  await rescueProcess(a.database, { id: process, beat: '0' } as never, '{}')
  const late = await insertClaimed(database)
  const back = await rescheduleJobs(b.run, [ackOf(late, 'available')])
  expect(back.size).toBe(1)
  const [claimed] = await claim(b.database, process)
  await a.commit()
  expect(await rescueOrphans(database)).toMatchObject([{ id: claimed!.id }])
})
