import { describe, expect, test, vi } from 'vitest'
import { pollingNotifier } from '../../src/index.ts'
import { Database } from '../../src/store/database.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { useEngines } from '../support/engines.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { insertJob } from '../support/store-jobs.ts'
import { notifierContract, useListeners } from './contract.ts'

const bench = useEngines()
const MIN_MS = 2
const MAX_MS = 20
const make = () => pollingNotifier({ minMs: MIN_MS, maxMs: MAX_MS })
const listener = useListeners(make)

notifierContract(bench, make)

/** The database through a proxy that counts the questions. */
async function watched(work: (database: Database, proxy: FaultProxy, asked: () => number) => Promise<void>) {
  const { url, schema } = bench.schema
  const proxy = await startFaultProxy({ ...serverAddress(url), log: true })
  const options = {
    url: proxy.url(url),
    size: 1,
    applicationName: 'poll',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  }
  const database = new Database(schema, options)
  try {
    await work(
      database,
      proxy,
      () => proxy.statements.filter(({ sql }) => sql.includes('AS queue FROM unnest')).length,
    )
  } finally {
    await database.end()
    await proxy.close()
  }
}

function pauses(proxy: FaultProxy): number[] {
  const times = proxy.statements.map(({ time }) => time)
  return times.slice(1).map((time, index) => time - times[index]!)
}

describe('the pace', () => {
  test('is one question for all queues, rarer and rarer while there is nothing', async () => {
    await watched(async (database, proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => pauses(proxy).at(-1)! >= MAX_MS)
      await notifier.stop()
      expect(pauses(proxy).length).toBeGreaterThan(9)
      expect(asked()).toBe(proxy.statements.length)
    })
  })

  test('is quick again when this process finds work by itself', async () => {
    await watched(async (database, proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => pauses(proxy).at(-1)! >= MAX_MS)
      const before = asked()
      notifier.observe?.(false)
      notifier.observe?.(true)
      await eventually(() => asked() >= before + 12)
      expect(Math.min(...pauses(proxy).slice(before))).toBeLessThan(MAX_MS / 2)
    })
  })

  test('stays slow when this process finds nothing by itself', async () => {
    await watched(async (database, proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => pauses(proxy).at(-1)! >= MAX_MS)
      const before = asked()
      notifier.observe?.(false)
      await eventually(() => asked() >= before + 4)
      const slow = pauses(proxy).slice(before)
      // In all: a question that comes late makes the pause after it look short.
      expect(slow.reduce((sum, pause) => sum + pause, 0)).toBeGreaterThan((slow.length * MAX_MS) / 2)
    })
  })

  test('is quick while there is work', async () => {
    await watched(async (database, _proxy, asked) => {
      await insertJob(bench.schema.database)
      const { start, hints } = listener(bench.schema, { database })
      await start()
      await eventually(() => asked() >= 10)
      expect(hints.length).toBeGreaterThanOrEqual(9)
    })
  })
})

test('the defaults ask 12 times a minute when there is nothing, and at most 1,200 times while there is work', async () => {
  vi.useFakeTimers()
  try {
    let [questions, work] = [0, false]
    const query = async () => {
      questions++
      return work ? [{ queue: 'queue' }] : []
    }
    const database = { query } as unknown as Database
    const notifier = pollingNotifier()
    const telemetry = new Telemetry()
    const context = { database, directUrl: null, applicationName: 'app', queues: ['queue'], telemetry }
    await notifier.start({ ...context, receive: () => {} })
    const inOneMinute = async () => {
      const before = questions
      await vi.advanceTimersByTimeAsync(60_000)
      return questions - before
    }
    await vi.advanceTimersByTimeAsync(100_000)
    expect(questions).toBeLessThan(20 + 20 * Math.log(100) + 10)
    expect(await inOneMinute()).toBe(12)
    work = true
    await vi.advanceTimersByTimeAsync(6_000)
    expect(await inOneMinute()).toBe(1_200)
    await notifier.stop()
  } finally {
    vi.useRealTimers()
  }
})

test('asks for its own queues only', async () => {
  await insertJob(bench.schema.database, { queue: 'not mine' })
  await insertJob(bench.schema.database, { queue: 'other' })
  const { start, hints } = listener(bench.schema)
  await start()
  await eventually(() => hints.length > 2)
  expect(new Set(hints.map((hint) => 'queue' in hint && hint.queue))).toEqual(new Set(['other']))
})

test('a question that fails is reported, and asked again', async () => {
  await watched(async (database, proxy) => {
    const { start, telemetry, hints } = listener(bench.schema, { database })
    proxy.onStatement(/AS queue FROM unnest/, 'cut-before')
    const failed = telemetry.next('statement:failed')
    await start()
    expect(await failed).toMatchObject({ statement: 'poll', error: { code: 'CONNECTION_FAILED' } })
    await insertJob(bench.schema.database)
    await eventually(() => hints.length > 0)
  })
})

test('follows its own hints at once', async () => {
  const { start, notifier, hints } = listener(bench.schema)
  await start()
  await notifier.publish(bench.schema.database, [{ kind: 'cancel', jobId: '7' }])
  expect(hints).toEqual([{ kind: 'cancel', jobId: '7' }])
})
