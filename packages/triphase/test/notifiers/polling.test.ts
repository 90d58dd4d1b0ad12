import { describe, expect, test, vi } from 'vitest'
import { pollingNotifier } from '../../src/index.ts'
import type { Notifier } from '../../src/notifier.ts'
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

test.each([
  ['minMs', 0],
  ['minMs', Number.NaN],
  ['minMs', '50ms'],
  ['maxMs', -1],
  ['maxMs', Number.POSITIVE_INFINITY],
])('%s cannot be %j', (name, ms) => {
  const fault = { code: 'INVALID_OPTIONS', message: expect.stringContaining(name) }
  expect(() => pollingNotifier({ [name]: ms })).toThrow(expect.objectContaining(fault))
})

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
      // The machine may pause at any of them.
      await eventually(() => pauses(proxy).length > 2 && pauses(proxy).at(-1)! >= MAX_MS)
      await notifier.stop()
      expect(asked()).toBe(proxy.statements.length)
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

describe('by the clock, with the defaults', () => {
  /** Under a clock that stands still unless it is moved on; there is work while `found.work` says so. */
  async function clocked(
    act: (
      asked: { for: (ms: number) => Promise<number> },
      found: { work: boolean },
      notifier: Notifier,
    ) => Promise<void>,
    heartbeatMs = 4_000,
  ) {
    vi.useFakeTimers()
    try {
      let questions = 0
      const found = { work: false }
      const query = async () => {
        questions++
        return found.work ? [{ queue: 'queue' }] : []
      }
      const database = { query } as unknown as Database
      const notifier = pollingNotifier()
      const telemetry = new Telemetry()
      const names = { directUrl: '', session: null, applicationName: 'app', queues: ['queue'] }
      await notifier.start({ ...names, database, heartbeatMs, telemetry, receive: () => {} })
      const asked = async (ms: number) => {
        const before = questions
        await vi.advanceTimersByTimeAsync(ms)
        return questions - before
      }
      await act({ for: asked }, found, notifier)
      await notifier.stop()
    } finally {
      vi.useRealTimers()
    }
  }

  test('none when there is nothing for long, and at most 1,200 a minute while there is work', async () => {
    await clocked(async (asked, found, notifier) => {
      expect(await asked.for(100_000)).toBeLessThan(20 + 20 * Math.log(100) + 10)
      expect(await asked.for(600_000)).toBe(0)
      found.work = true
      notifier.observe?.(true)
      expect(await asked.for(60_000)).toBe(1_200)
    })
  })

  test('12 a minute where the heartbeat asks more rarely', async () => {
    await clocked(async (asked, found) => {
      await asked.for(200_000)
      expect(await asked.for(60_000)).toBe(12)
      found.work = true
      await asked.for(6_000)
      expect(await asked.for(60_000)).toBe(1_200)
    }, 30_000)
  })

  test('quick again when this process finds work by itself, and not when it finds nothing', async () => {
    await clocked(async (asked, _found, notifier) => {
      await asked.for(200_000)
      notifier.observe?.(false)
      expect(await asked.for(60_000)).toBe(0)
      notifier.observe?.(true)
      expect(await asked.for(1_000)).toBeGreaterThan(15)
    })
  })
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
