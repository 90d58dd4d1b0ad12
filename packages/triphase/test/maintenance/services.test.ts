import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Loop } from '../../src/loop.ts'
import { Heart } from '../../src/maintenance/heart.ts'
import { Janitor } from '../../src/maintenance/janitor.ts'
import { processIdentity } from '../../src/maintenance/machine.ts'
import { Stager } from '../../src/maintenance/stager.ts'
import type { Hint, Notifier } from '../../src/notifier.ts'
import { memoryNotifier } from '../../src/notifiers/memory.ts'
import { pollingNotifier } from '../../src/notifiers/polling.ts'
import { postgresNotifier } from '../../src/notifiers/postgres.ts'
import type { Database } from '../../src/store/database.ts'
import { deregisterProcess } from '../../src/store/heartbeat.ts'
import { Telemetry } from '../../src/telemetry.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'

const bench = useEngines()
afterEach(() => void vi.useRealTimers())

interface Service {
  start(): void | Promise<void>
  stop(): Promise<void>
}

/** Starts and stops in every order that a hurried caller may find, a hundred times, and stops in the end. */
async function stress(service: Service): Promise<void> {
  await service.stop()
  for (let round = 0; round < 100; round++) {
    const calls = [service.start(), service.start(), round % 3 === 0 ? turn() : undefined]
    if (round % 2 === 0) await Promise.all(calls)
    const stops = [service.stop(), service.stop()]
    if (round % 5 !== 0) await Promise.all([...calls, ...stops])
    else await Promise.all(calls)
  }
  await service.stop()
  await service.stop()
}

/** The database, with a count of the statements that have been sent to it. */
function counted(): { database: Database; sent: () => number } {
  let sent = 0
  const { database } = bench.schema
  const proxy = new Proxy(database, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name, target)
      if (typeof value !== 'function') return value
      if (name === 'query' || name === 'transaction') sent++
      return value.bind(target)
    },
  })
  return { database: proxy, sent: () => sent }
}

/** A service that was stopped sends nothing more. */
async function expectSilence(sent: () => number): Promise<void> {
  const before = sent()
  for (let turns = 0; turns < 50; turns++) await turn()
  expect(sent()).toBe(before)
}

describe('a loop', () => {
  const operations = fc.array(fc.constantFrom('start', 'stop', 'stop and wait', 'wake', 'turn'), {
    maxLength: 40,
  })

  test('never runs two passes at a time, and none after a stop, whatever is called in whatever order', async () => {
    const property = fc.asyncProperty(operations, async (calls) => {
      let running = 0
      let passes = 0
      const loop = new Loop(async () => {
        passes++
        expect(++running).toBe(1)
        await turn()
        running--
        return passes % 2
      })
      for (const call of calls) {
        if (call === 'start') loop.start()
        else if (call === 'stop') void loop.stop()
        else if (call === 'stop and wait') await loop.stop()
        else if (call === 'wake') loop.wake()
        else await turn()
      }
      await loop.stop()
      expect(running).toBe(0)
      const before = passes
      for (let turns = 0; turns < 5; turns++) await turn()
      expect(passes).toBe(before)
    })
    await fc.assert(property, { numRuns: 200 })
  })

  test('runs again when it is started while it stops', async () => {
    const passed = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    const hold = Promise.withResolvers<void>()
    let passes = 0
    const loop = new Loop(async () => {
      passed[passes++]?.resolve()
      if (passes === 1) await hold.promise
      return 60_000
    })
    loop.start()
    await passed[0]?.promise
    const stopping = loop.stop()
    loop.start()
    hold.resolve()
    await stopping
    await passed[1]?.promise
    await loop.stop()
    expect(passes).toBe(2)
  })
})

describe('a service survives starts and stops in every order, and is silent after the last stop', () => {
  test('heart', async () => {
    const { database, sent } = counted()
    const heart = new Heart({
      database,
      identity: processIdentity('stress', [], 0),
      telemetry: new Telemetry(),
      heartbeatMs: 10,
      deadAfterMs: 60_000,
      running: () => [],
      onBeat: () => {},
      onLost: () => {},
      onDead: async () => {},
    })
    await stress({
      start: () => heart.start(),
      stop: () => heart.stop(),
    })
    await expectSilence(sent)
    await heart.start()
    await heart.start()
    await eventually(async () => (await beatsOf(heart.processId)) > 1)
    await heart.stop()
    await deregisterProcess(database, heart.processId)
  })

  test('stager', async () => {
    const { database, sent } = counted()
    const stager = new Stager(database, new Telemetry(), () => {})
    await stress(stager)
    stager.dueIn(0)
    await expectSilence(sent)
  })

  test('janitor', async () => {
    const { database, sent } = counted()
    const janitor = new Janitor(database, new Telemetry(), 86_400_000, () => {})
    await stress({ start: () => janitor.lead(true), stop: () => janitor.stop() })
    await expectSilence(sent)
  })

  test.each([
    ['memory', memoryNotifier],
    ['polling', () => pollingNotifier({ minMs: 1, maxMs: 2 })],
    ['postgres', postgresNotifier],
  ])('%s notifier', async (_name, make) => {
    const { database, sent } = counted()
    const notifier = make()
    await stress({ start: () => start(notifier, database), stop: () => notifier.stop() })
    await expectSilence(sent)
    const received: Hint[] = []
    await start(notifier, database, (hint) => received.push(hint))
    await notifier.publish(database, [{ kind: 'cancel', jobId: '1' }])
    await eventually(() => expect(received).toContainEqual({ kind: 'cancel', jobId: '1' }))
    await notifier.stop()
    expect(await listeners()).toBe(0)
  })
})

function start(
  notifier: Notifier,
  database: Database,
  receive: (hint: Hint) => void = () => {},
): Promise<void> {
  return notifier.start({
    database,
    directUrl: testDatabaseUrl(),
    session: null,
    applicationName: `stress ${bench.schema.schema}`,
    heartbeatMs: 4_000,
    queues: ['default'],
    telemetry: new Telemetry(),
    receive,
  })
}

async function listeners(): Promise<number> {
  const named = `SELECT FROM pg_stat_activity WHERE application_name = $1`
  const gone = async () =>
    (await bench.schema.database.query(named, [`stress ${bench.schema.schema}-listen`])).length
  await eventually(async () => (await gone()) === 0)
  return gone()
}

async function beatsOf(processId: string): Promise<number> {
  const sql = `SELECT beat FROM triphase.process WHERE id = $1`
  const [row] = await bench.schema.database.query<{ beat: string }>(sql, [processId])
  return Number(row?.beat ?? 0)
}

describe('a stager that is stopped in the middle of a pass', () => {
  test('leaves no timer behind, which would keep its process alive until the next job is due', async () => {
    vi.useFakeTimers()
    const reply = Promise.withResolvers<{ ms: number }[]>()
    const replies = [Promise.resolve([]), reply.promise]
    const asked = Promise.withResolvers<void>()
    const database = {
      query: () => {
        if (replies.length === 1) asked.resolve()
        return replies.shift()
      },
    }
    const stager = new Stager(database as unknown as Database, new Telemetry(), () => {})
    stager.start()
    await asked.promise
    const stopped = stager.stop()
    reply.resolve([{ ms: 3_600_000 }])
    await stopped
    expect(vi.getTimerCount()).toBe(0)
    stager.dueIn(3_600_000)
    expect(vi.getTimerCount()).toBe(0)
  })
})
