import { describe, expect, test } from 'vitest'
import { type Hint, postgresNotifier } from '../../src/index.ts'
import type { NotifierContext } from '../../src/notifier.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { notifierContract, useListeners, useSessions } from './contract.ts'

const bench = useEngines()
const listener = useListeners(postgresNotifier)

const sessions = useSessions()

notifierContract(bench, postgresNotifier)
notifierContract(bench, postgresNotifier, true)

function listening(applicationName: string): Promise<unknown[]> {
  return bench.schema.database.query(
    `SELECT query FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'LISTEN%'`,
    [applicationName],
  )
}

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

test('listens on one connection of its own, which it closes at the end', async () => {
  const applicationName = `own-${bench.schema.schema}`
  const { start, notifier, telemetry } = listener(bench.schema, { applicationName })
  const connected = telemetry.next('notifier:changed')
  await start()
  expect(await connected).toEqual({ notifier: 'postgres', connected: true, error: null })
  expect(await listening(`${applicationName}-listen`)).toHaveLength(1)
  await notifier.stop()
  await eventually(async () => expect(await listening(`${applicationName}-listen`)).toEqual([]))
})

test('what others send on its channel, and nonsense, is passed over', async () => {
  const { start, notifier, hints } = listener(bench.schema)
  await start()
  const { database, schema } = bench.schema
  for (const payload of ['', 'nonsense', '{"kind":"later"}', '{"kind":"cancel"}']) {
    await database.query('SELECT pg_notify($1, $2)', [`triphase_${schema}`, payload])
  }
  await notifier.publish(database, [{ kind: 'resync' }])
  await eventually(() => expect(hints).toEqual([{ kind: 'resync' }]))
})

const CONNECTIONS: Record<string, (url: string) => Partial<NotifierContext>> = {
  'a connection of its own': (directUrl) => ({ directUrl }),
  "the heartbeat's connection": (url) => ({ directUrl: url, session: sessions(bench.schema, url) }),
}

describe.each(Object.entries(CONNECTIONS))('on %s', (_what, through) => {
  test('a lost connection is opened again, and whoever listens is told to look everywhere', async () => {
    const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
    const { start, hints, telemetry, notifier } = listener(
      bench.schema,
      through(proxy.url(testDatabaseUrl())),
    )
    await start()
    const lost = telemetry.next('notifier:changed', ({ connected }) => !connected)
    const back = telemetry.next('notifier:changed', ({ connected }) => connected)
    proxy.cutAll()
    expect(await lost).toMatchObject({ notifier: 'postgres', error: { message: expect.any(String) } })
    await back
    expect(hints).toEqual([{ kind: 'resync' }])
    await notifier.publish(bench.schema.database, [{ kind: 'available', queue: 'queue' }])
    await eventually(() => expect(hints).toContainEqual({ kind: 'available', queue: 'queue' }))
    await notifier.stop()
    await proxy.close()
  })

  test('one that is lost as soon as it hears, again and again, is opened more and more rarely', async () => {
    const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
    const url = proxy.url(testDatabaseUrl())
    const { start, telemetry, notifier } = listener(bench.schema, through(url))
    const heard: number[] = []
    telemetry.on('notifier:changed', ({ connected }) => {
      if (!connected) return
      heard.push(performance.now())
      proxy.cutAll()
    })
    await start()
    await eventually(() => heard.length === 5, { timeout: 20_000 })
    // 100, 250, 500 and 1000 ms.
    expect(heard[4]! - heard[0]!).toBeGreaterThan(1_800)
    await notifier.stop()
    await proxy.close()
  })

  test('a database that comes late is listened to then', async () => {
    const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
    proxy.refuse(true)
    const { start, hints, telemetry, notifier } = listener(
      bench.schema,
      through(proxy.url(testDatabaseUrl())),
    )
    const away = telemetry.next('notifier:changed')
    await start()
    expect(await away).toMatchObject({ connected: false })
    const back = telemetry.next('notifier:changed', ({ connected }) => connected)
    proxy.refuse(false)
    await back
    expect(hints).toEqual([{ kind: 'resync' }])
    await notifier.stop()
    await proxy.close()
  })
})

test("the heartbeat's connection is given back: statements go on, and so they do after stop", async () => {
  const session = sessions(bench.schema)
  const { start, notifier, hints } = listener(bench.schema, { session })
  await start()
  await expect(session.query('SELECT 1 AS one')).resolves.toEqual([{ one: 1 }])
  expect(session.connections).toEqual({ open: 1, inUse: 0, waiting: 0 })
  await notifier.stop()
  await notifier.publish(bench.schema.database, [{ kind: 'resync' }])
  await expect(session.query('SELECT 2 AS two')).resolves.toEqual([{ two: 2 }])
  expect(session.connections.open).toBe(1)
  expect(hints).toEqual([])
})

test('a heartbeat that takes long keeps notifications back, which is not taken for a pooler', async () => {
  const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
  const session = sessions(bench.schema, proxy.url(testDatabaseUrl()))
  const { start, notifier, telemetry } = listener(bench.schema, { session })
  const changes: unknown[] = []
  telemetry.on('notifier:changed', (change) => changes.push(change))
  const listens = proxy.onStatement(/^LISTEN/, 'hold-reply')
  const starting = start()
  await listens.hit
  // Longer than a probe is waited for.
  const beat = session.query('SELECT pg_sleep(2.5)')
  listens.release()
  await starting
  expect(changes).toEqual([])
  await beat
  await eventually(() => expect(changes).toEqual([{ notifier: 'postgres', connected: true, error: null }]))
  await notifier.stop()
  await proxy.close()
})

test('stopped while it connects, it does not come back', async () => {
  const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
  const applicationName = `late-${bench.schema.schema}`
  const directUrl = proxy.url(testDatabaseUrl())
  const { start, notifier, telemetry } = listener(bench.schema, { directUrl, applicationName })
  const changes: boolean[] = []
  telemetry.on('notifier:changed', ({ connected }) => changes.push(connected))
  await start()
  const held = proxy.onStatement(/^LISTEN/, 'hold-before')
  proxy.cutAll()
  await held.hit
  await notifier.stop()
  held.release()
  await eventually(async () => expect(await listening(`${applicationName}-listen`)).toEqual([]))
  expect(changes).toEqual([true, false])
  await proxy.close()
})
