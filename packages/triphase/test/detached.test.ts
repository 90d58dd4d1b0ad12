import { AsyncLocalStorage } from 'node:async_hooks'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { expect, onTestFinished, test } from 'vitest'
import { Acker } from '../src/queue/acker.ts'
import { HintOutbox } from '../src/queue/hints.ts'
import { Database } from '../src/store/database.ts'
import { Telemetry } from '../src/telemetry.ts'
import { useEngines } from './support/engines.ts'
import { ackOf, claim, insertMany, insertProcess } from './support/store-jobs.ts'

const bench = useEngines()
const caller = new AsyncLocalStorage<string>()

function openDatabase(onHeld: () => void = () => {}): Database {
  const { url, schema } = bench.schema
  const options = {
    url,
    size: 1,
    applicationName: 'detached',
    acquireTimeoutMs: 5_000,
    statementTimeoutMs: 5_000,
  }
  const database = new Database(schema, options, undefined, onHeld)
  onTestFinished(() => database.end())
  return database
}

test('a new connection of the engine belongs to no caller', async () => {
  const seen: unknown[] = []
  const listener = () => seen.push(caller.getStore())
  subscribe('net.client.socket', listener)
  onTestFinished(() => void unsubscribe('net.client.socket', listener))
  const database = openDatabase()
  const after = await caller.run('caller', async () => {
    await database.query('SELECT 1')
    return caller.getStore()
  })
  expect(seen).toEqual([undefined])
  expect(after).toBe('caller')
})

test('what a connection tells belongs to whoever listens on it', async () => {
  const seen: unknown[] = []
  const database = openDatabase()
  await database.query('SELECT 1')
  const told = new Promise<void>((resolve) => {
    const hears = (): void => {
      seen.push(caller.getStore())
      if (seen.length === 2) resolve()
    }
    void caller.run('caller', () => database.listen('LISTEN detached', { notified: hears, lost: hears }))
  })
  await database.query(`NOTIFY detached`)
  await database.query('SELECT pg_terminate_backend(pg_backend_pid())').catch(() => {})
  await told
  expect(seen).toEqual(['caller', 'caller'])
})

test('a write of acks belongs to none of those who gave them', async () => {
  const seen: unknown[] = []
  const { database } = bench.schema
  await insertMany(database, 1)
  const [job] = await claim(database, await insertProcess(database), 1)
  const acker = new Acker(
    openDatabase(() => seen.push(caller.getStore())),
    new Telemetry(),
  )
  const outcome = caller.run('caller', () => acker.add(ackOf(job!, 'completed', {})))
  expect(await outcome).toBe('acked')
  expect(seen).toEqual([undefined])
})

test('hints belong to none of those who gave them', async () => {
  const seen: unknown[] = []
  const notifier = {
    name: 'test',
    start: async () => {},
    publish: async () => void seen.push(caller.getStore()),
    stop: async () => {},
  }
  const outbox = new HintOutbox(bench.schema.database, notifier, new Telemetry())
  caller.run('caller', () => outbox.add([{ kind: 'available', queue: 'a' }]))
  await outbox.flushed()
  expect(seen).toEqual([undefined])
})
