import { describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { Acker } from '../../src/queue/acker.ts'
import type { Ack } from '../../src/store/ack.ts'
import { Database } from '../../src/store/database.ts'
import { rescueProcess } from '../../src/store/rescue.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { useEngines } from '../support/engines.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { jobIn } from '../support/jobs.ts'
import { ackOf, claim, insertClaimed, insertMany, insertProcess, rowsOf } from '../support/store-jobs.ts'

const bench = useEngines()
const FINISH = /\.finish_jobs\(/
const RESCHEDULE = /\.reschedule_jobs\(/

interface Through {
  acker: Acker
  telemetry: Telemetry
  proxy: FaultProxy
}

/** An acker whose connections go through a fault proxy. */
async function withAcker(work: (through: Through) => Promise<void>): Promise<void> {
  const { url, schema } = bench.schema
  const proxy = await startFaultProxy({ ...serverAddress(url), log: true })
  const database = new Database(schema, {
    url: proxy.url(url),
    size: 2,
    applicationName: 'acker',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  })
  const telemetry = new Telemetry()
  const acker = new Acker(database, telemetry)
  try {
    await work({ acker, telemetry, proxy })
  } finally {
    acker.giveUp()
    await proxy.close()
    await database.end()
  }
}

async function claimMany(count: number) {
  const { database } = bench.schema
  await insertMany(database, count)
  return claim(database, await insertProcess(database), count)
}

const OUTCOMES: [string, Ack['state'], Partial<Ack>, RegExp][] = [
  ['completed', 'completed', { result: '{"n":1}' }, FINISH],
  ['discarded', 'discarded', { error: '{"name":"Error"}' }, FINISH],
  ['retryable', 'retryable', { delayMs: 60_000 }, RESCHEDULE],
  ['handed back', 'available', { countsAsAttempt: false }, RESCHEDULE],
]

describe('the fence', () => {
  test('an ack of an earlier claim that is written together with that of a later one is lost', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const { database } = bench.schema
      const [other, job] = await claimMany(2)
      await database.query('UPDATE triphase.job SET claim_no = 2 WHERE id = $1', [job!.id])
      const first = proxy.onStatement(FINISH, 'hold-before')
      const alone = acker.add(ackOf(other!, 'completed'))
      await first.hit
      const together = [ackOf(job!, 'discarded'), ackOf({ ...job!, claimNo: 2 }, 'completed')]
      const outcomes = Promise.all(together.map((ack) => acker.add(ack)))
      first.release()
      expect(await alone).toBe('acked')
      expect(await outcomes).toEqual(['lost', 'acked'])
    })
  })

  test.each(OUTCOMES)('a claim that was rescued meanwhile is lost: %s', async (_what, state, details) => {
    await withAcker(async ({ acker }) => {
      const { database } = bench.schema
      const job = await insertClaimed(database)
      const [row] = await rowsOf(database, job.id)
      await rescueProcess(database, { id: row!.processId!, beat: '0' } as never, '{}')
      const before = await rowsOf(database, job.id)
      expect(before).toMatchObject([{ state: 'available', claimNo: 2 }])
      expect(await acker.add(ackOf(job, state, details))).toBe('lost')
      expect(await rowsOf(database, job.id)).toEqual(before)
    })
  })

  test.each(OUTCOMES)('a job that others run again is not touched: %s', async (_what, state, details) => {
    await withAcker(async ({ acker }) => {
      const { database } = bench.schema
      const job = await insertClaimed(database)
      const [row] = await rowsOf(database, job.id)
      await rescueProcess(database, { id: row!.processId!, beat: '0' } as never, '{}')
      const [again] = await claim(database, await insertProcess(database))
      expect(again).toMatchObject({ id: job.id, claimNo: 3 })
      const before = await rowsOf(database, job.id)
      expect(await acker.add(ackOf(job, state, details))).toBe('lost')
      expect(await rowsOf(database, job.id)).toEqual(before)
      expect(await acker.add(ackOf(again!, state, details))).toBe('acked')
    })
  })

  test('in one batch, those that hold are acked and those that do not are lost', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const jobs = await claimMany(20)
      const wrong = new Set([jobs[0]!.id, jobs[7]!.id, jobs[19]!.id])
      const held = proxy.onStatement(FINISH, 'hold-before')
      const first = await insertClaimed(bench.schema.database)
      const firstAck = acker.add(ackOf(first, 'completed'))
      await held.hit
      const acks = jobs.map((job) => {
        const claimNo = wrong.has(job.id) ? job.claimNo + 1 : job.claimNo
        return acker.add(ackOf({ ...job, claimNo }, 'completed'))
      })
      held.release()
      expect(await firstAck).toBe('acked')
      expect(await Promise.all(acks)).toEqual(jobs.map(({ id }) => (wrong.has(id) ? 'lost' : 'acked')))
    })
  })
})

describe('a reply that is lost', () => {
  test.each(OUTCOMES)(
    'leaves an ack that was written: it is not written twice: %s',
    async (_w, state, details, sql) => {
      await withAcker(async ({ acker, telemetry, proxy }) => {
        const { database } = bench.schema
        const job = await insertClaimed(database)
        const lost = proxy.onStatement(sql, 'cut-after')
        const failed = telemetry.next('statement:failed')
        const outcome = acker.add(ackOf(job, state, details))
        await lost.hit
        const written = await rowsOf(database, job.id)
        expect(written).toMatchObject([{ state }])
        expect(await failed).toMatchObject({ statement: expect.stringMatching(/^ack/) })
        expect(await outcome).toBe('acked')
        expect(await rowsOf(database, job.id)).toEqual(written)
      })
    },
  )

  test.each(OUTCOMES)(
    'and an ack that was not: it is written then: %s',
    async (_what, state, details, sql) => {
      await withAcker(async ({ acker, proxy }) => {
        const job = await insertClaimed(bench.schema.database)
        const lost = proxy.onStatement(sql, 'cut-before')
        expect(await acker.add(ackOf(job, state, details))).toBe('acked')
        expect(lost.hits).toBe(1)
        expect(await rowsOf(bench.schema.database, job.id)).toMatchObject([{ state }])
      })
    },
  )
})

describe('batches', () => {
  test('outcomes that come while one write is under way go together in the next', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const jobs = await claimMany(101)
      const held = proxy.onStatement(FINISH, 'hold-before')
      const acks = [acker.add(ackOf(jobs[0]!, 'completed', { result: '"first"' }))]
      await held.hit
      for (const job of jobs.slice(1)) acks.push(acker.add(ackOf(job, 'completed')))
      expect(acker.pending).toBe(101)
      held.release()
      expect(new Set(await Promise.all(acks))).toEqual(new Set(['acked']))
      expect(proxy.statements.filter(({ sql }) => FINISH.test(sql))).toHaveLength(2)
      expect(acker.pending).toBe(0)
    })
  })

  test('what finishes and what sends back do not wait for each other', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const jobs = await claimMany(2)
      const held = proxy.onStatement(FINISH, 'hold-before')
      const finished = acker.add(ackOf(jobs[0]!, 'completed'))
      await held.hit
      expect(await acker.add(ackOf(jobs[1]!, 'retryable', { delayMs: 1 }))).toBe('acked')
      held.release()
      expect(await finished).toBe('acked')
    })
  })

  test('below() waits until few enough are waiting', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const jobs = await claimMany(3)
      const held = proxy.onStatement(FINISH, 'hold-before')
      const acks = jobs.map((job) => acker.add(ackOf(job, 'completed')))
      await held.hit
      await acker.below(4)
      let below = false
      const ready = acker.below(3).then(() => {
        below = true
      })
      await new Promise((resolve) => setImmediate(resolve))
      expect(below).toBe(false)
      held.release()
      await ready
      await Promise.all(acks)
    })
  })

  test.each([
    ['error', 'discarded', { error: 'not json' }],
    ['result', 'completed', { result: '{"open": ' }],
    ['result with raw \\u0000', 'completed', { result: '"a\u0000b"' }],
    ['phases', 'completed', { attempt: { ...attempt(), phases: '[' } }],
    ['delay', 'retryable', { delayMs: 1e300 }],
  ] as const)('with one value that Postgres refuses fail only there: %s', async (_what, state, details) => {
    await withAcker(async ({ acker, proxy }) => {
      const { database } = bench.schema
      const jobs = await claimMany(40)
      const held = proxy.onStatement(/\.(finish|reschedule)_jobs\(/, 'hold-before')
      const innocent = state === 'retryable' ? ackOf(jobs[0]!, 'retryable') : ackOf(jobs[0]!, 'completed')
      const acks = [acker.add(innocent)]
      await held.hit
      for (const [index, job] of jobs.slice(1).entries()) {
        acks.push(acker.add(ackOf(job, state, index === 12 ? details : { delayMs: 1 })))
      }
      held.release()
      await Promise.all(acks)
      const states = await Promise.all(jobs.map(async ({ id }) => (await rowsOf(database, id))[0]?.state))
      const expected: string[] = jobs.map(() => (state === 'discarded' ? 'discarded' : state))
      expected[0] = innocent.state
      expected[13] = 'discarded'
      expect(states).toEqual(expected)
      const error = await database.query<{ error: string }>(
        'SELECT error::text FROM triphase.job_history WHERE id = $1',
        [jobs[13]!.id],
      )
      expect(JSON.parse(error[0]!.error)).toMatchObject({ code: 'WRITE_REFUSED' })
    })
  })
})

function attempt() {
  return { outcome: 'completed', checkouts: 1, waitMs: 1, holdMs: 1, longestHoldMs: 1, phases: '{}' } as const
}

describe('while the database is away', () => {
  test('outcomes are kept, and each is written once when it is back', async () => {
    await withAcker(async ({ acker, telemetry, proxy }) => {
      const { database } = bench.schema
      const jobs = await claimMany(30)
      proxy.refuse(true)
      const failed = telemetry.next(
        'statement:failed',
        ({ statement }) => statement === 'ack (no connection)',
      )
      const acks = jobs.map((job, n) =>
        acker.add(
          ackOf(job, n % 3 ? 'completed' : 'retryable', { result: n % 3 ? `${n}` : null, delayMs: 1e6 }),
        ),
      )
      expect((await failed).retryInMs).toBeGreaterThan(0)
      expect(acker.pending).toBe(30)
      proxy.refuse(false)
      expect(new Set(await Promise.all(acks))).toEqual(new Set(['acked']))
      const rows = await Promise.all(jobs.map(({ id }) => rowsOf(database, id)))
      expect(rows.map((row) => row.map(({ state }) => state))).toEqual(
        jobs.map((_job, n) => [n % 3 ? 'completed' : 'retryable']),
      )
    })
  })

  test('nothing is tried again once told to give up', async () => {
    await withAcker(async ({ acker, proxy }) => {
      const [job] = await claimMany(1)
      proxy.refuse(true)
      const outcome = acker.add(ackOf(job!, 'completed'))
      acker.giveUp()
      expect(await outcome).toBe('refused')
    })
  })

  test('the whole engine: every job is completed once, with its own result', async () => {
    const { url } = bench.schema
    const proxy = await startFaultProxy(serverAddress(url))
    const allStarted = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    let runs = 0
    const task = defineTask({
      name: 'task',
      input: unchecked<number>(),
      run: async ({ input }) => {
        if (++runs === 100) allStarted.resolve()
        await goOn.promise
        return input
      },
    })
    const engine = bench.engine({ url: proxy.url(url), tasks: [task], queues: { default: 100 } })
    const watcher = bench.engine()
    const inputs = Array.from({ length: 100 }, (_, input) => ({ input }))
    const jobs = await watcher.enqueueMany(task, inputs)
    await engine.start()
    await allStarted.promise
    const away = engine.telemetry.next('statement:failed', ({ statement }) => statement.startsWith('ack'))
    proxy.refuse(true)
    proxy.cutAll()
    goOn.resolve()
    await away
    expect(await watcher.counts()).toEqual([{ queue: 'default', state: 'executing', count: 100 }])
    proxy.refuse(false)
    for (const [n, { id }] of jobs.entries()) {
      expect(await jobIn(watcher, id, 'completed')).toMatchObject({ result: n, attempt: 1 })
    }
    expect(runs).toBe(100)
    await engine.stop({ graceMs: 0 })
    await proxy.close()
  })
})
