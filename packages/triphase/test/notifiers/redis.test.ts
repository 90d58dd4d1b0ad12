import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Hint, Notifier } from '../../src/index.ts'
import { type RedisNotifierOptions, redisNotifier } from '../../src/notifiers/redis.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'
import { NO_REDIS, type RedisServer, startRedis } from '../support/redis.ts'
import { insertJob } from '../support/store-jobs.ts'
import { notifierContract, useListeners } from './contract.ts'

const NOBODY_THERE = 'redis://127.0.0.1:1'

describe.skipIf(NO_REDIS)('over a real Redis', () => {
  const bench = useEngines()
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.dispose())
  const make = () => redisNotifier({ url: redis.url })
  const listener = useListeners(make)
  const others: Notifier[] = []
  afterEach(async () => {
    for (const notifier of others.splice(0)) await notifier.stop()
  })

  /** A notifier with settings of its own. */
  function other(options: RedisNotifierOptions): Notifier {
    const notifier = redisNotifier(options)
    others.push(notifier)
    return notifier
  }

  notifierContract(bench, make)

  test('hints of all kinds arrive as they were sent, in order', async () => {
    const [a, b] = [listener(bench.schema), listener(bench.schema)]
    await b.start()
    const hints: Hint[] = [
      { kind: 'cancel', jobId: '7' },
      { kind: 'scheduled', inMs: 5.5 },
      { kind: 'queue-changed', queue: 'queue' },
      { kind: 'available', queue: 'a/b.c:d-e' },
      { kind: 'resync' },
    ]
    await a.notifier.publish(bench.schema.database, hints)
    await eventually(() => expect(b.hints).toEqual(hints))
  })

  test('processes with another prefix hear nothing of it', async () => {
    const elsewhere = other({ url: redis.url, prefix: 'elsewhere' })
    const [a, b] = [listener(bench.schema), listener(bench.schema)]
    await b.start()
    await elsewhere.publish(bench.schema.database, [{ kind: 'cancel', jobId: '1' }])
    await a.notifier.publish(bench.schema.database, [{ kind: 'cancel', jobId: '2' }])
    await eventually(() => expect(b.hints).toEqual([{ kind: 'cancel', jobId: '2' }]))
  })

  test('a Redis that goes away is said once, polled for meanwhile, and listened to again', async () => {
    const { start, hints, telemetry, notifier } = listener(bench.schema)
    const changes: boolean[] = []
    telemetry.on('notifier:changed', ({ connected }) => changes.push(connected))
    await start()
    await redis.kill()
    await expect(notifier.publish(bench.schema.database, [{ kind: 'resync' }])).rejects.toThrow(
      /^Redis cannot be reached: (connect ECONNREFUSED|Connection is closed)/,
    )
    await insertJob(bench.schema.database)
    await eventually(() => expect(hints).toContainEqual({ kind: 'available', queue: 'queue' }))
    await redis.start()
    await eventually(() => expect(hints).toContainEqual({ kind: 'resync' }))
    expect(changes).toEqual([true, false, true])
    await notifier.publish(bench.schema.database, [{ kind: 'cancel', jobId: '8' }])
    await eventually(() => expect(hints).toContainEqual({ kind: 'cancel', jobId: '8' }))
  })

  test('a Redis that is not there is said once, and polled instead of', async () => {
    const absent = other({ url: NOBODY_THERE })
    const witness = listener(bench.schema)
    const changes: unknown[] = []
    witness.telemetry.on('notifier:changed', (change) => changes.push(change))
    const context = {
      database: bench.schema.database,
      directUrl: '',
      session: null,
      applicationName: 'app',
      heartbeatMs: 4_000,
      queues: ['queue'],
      telemetry: witness.telemetry,
      receive: (hint: Hint) => witness.hints.push(hint),
    }
    await absent.start(context)
    await insertJob(bench.schema.database)
    await eventually(() => expect(witness.hints).toContainEqual({ kind: 'available', queue: 'queue' }))
    const error = { code: 'ECONNREFUSED' }
    expect(changes).toMatchObject([{ notifier: 'redis', connected: false, error }])
    await expect(absent.publish(bench.schema.database, [{ kind: 'resync' }])).rejects.toThrow(
      /^Redis cannot be reached: connect ECONNREFUSED/,
    )
  })
})
