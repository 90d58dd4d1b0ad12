import { describe, expect, test } from 'vitest'
import { pollingNotifier } from '../../src/index.ts'
import { Database } from '../../src/store/database.ts'
import { useEngines } from '../support/engines.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { insertJob } from '../support/store-jobs.ts'
import { notifierContract, useListeners } from './contract.ts'

const bench = useEngines()
const MIN_MS = 10
const MAX_MS = 200
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

describe('the pace', () => {
  test('is one question for all queues, rarer and rarer while there is nothing', async () => {
    await watched(async (database, proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => asked() >= 9)
      await notifier.stop()
      const times = proxy.statements.map(({ time }) => time)
      const pauses = times.slice(1).map((time, index) => time - times[index]!)
      expect(pauses.at(-1)).toBeGreaterThan(MAX_MS / 2)
      expect(pauses[0]).toBeLessThan(MAX_MS / 2)
    })
  })

  test('is quick again when this process finds work by itself', async () => {
    await watched(async (database, _proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => asked() >= 9)
      const [before, began] = [asked(), performance.now()]
      notifier.observe?.(false)
      notifier.observe?.(true)
      await eventually(() => asked() >= before + 3)
      expect(performance.now() - began).toBeLessThan(3 * MAX_MS)
    })
  })

  test('stays slow when this process finds nothing by itself', async () => {
    await watched(async (database, proxy, asked) => {
      const { start, notifier } = listener(bench.schema, { database })
      await start()
      await eventually(() => asked() >= 9)
      const before = asked()
      notifier.observe?.(false)
      await eventually(() => asked() > before)
      const times = proxy.statements.map(({ time }) => time)
      expect(times[before]! - times[before - 1]!).toBeGreaterThan(MAX_MS / 2)
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
