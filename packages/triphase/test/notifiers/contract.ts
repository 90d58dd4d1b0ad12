import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import type { Hint, Notifier, NotifierContext } from '../../src/notifier.ts'
import { Database } from '../../src/store/database.ts'
import { Telemetry } from '../../src/telemetry.ts'
import type { TestSchema } from '../../src/testing/index.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { type Bench, takeTestSchema } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'
import { eventually } from '../support/processes.ts'
import { insertJob } from '../support/store-jobs.ts'

/** A process as a notifier sees it. */
export interface Listener {
  readonly notifier: Notifier
  readonly hints: Hint[]
  readonly telemetry: Telemetry
  start(): Promise<void>
}

/** Makes listeners on a schema, stopped after each test. */
export function useListeners(
  make: () => Notifier,
): (schema: TestSchema, changes?: Partial<NotifierContext>) => Listener {
  const made: Notifier[] = []
  afterEach(async () => {
    for (const notifier of made.splice(0)) await notifier.stop()
  })
  return (schema, changes) => {
    const [notifier, telemetry] = [make(), new Telemetry()]
    made.push(notifier)
    const hints: Hint[] = []
    const context: NotifierContext = {
      database: schema.database,
      directUrl: testDatabaseUrl(),
      session: null,
      applicationName: 'notifier-test',
      heartbeatMs: 4_000,
      queues: ['queue', 'other'],
      telemetry,
      receive: (hint) => hints.push(hint),
      ...changes,
    }
    return { notifier, hints, telemetry, start: () => notifier.start(context) }
  }
}

const AVAILABLE: Hint = { kind: 'available', queue: 'queue' }

/** A connection as an engine keeps one for its heartbeats, to the database or wherever a URL leads; closed after the test. */
export function useSessions(): (schema: TestSchema, url?: string) => Database {
  const open: Database[] = []
  afterEach(async () => {
    await Promise.all(open.splice(0).map((session) => session.end()))
  })
  return ({ schema }, url = testDatabaseUrl()) => {
    const limits = { acquireTimeoutMs: 4_000, statementTimeoutMs: 4_000 }
    const session = new Database(schema, { url, size: 1, applicationName: `session ${schema}`, ...limits })
    open.push(session)
    return session
  }
}

/**
 * What every notifier has to do, whatever carries its hints.
 *
 * @param shares each process has a heartbeat's connection for it.
 */
export function notifierContract(bench: Bench, make: () => Notifier, shares = false): void {
  const sessions = useSessions()
  const apart = useListeners(make)
  const listener: typeof apart = (schema, changes) =>
    apart(schema, { session: shares ? sessions(schema) : null, ...changes })
  let elsewhere: TestSchema
  beforeAll(async () => {
    elsewhere = await takeTestSchema()
  })
  afterEach(() => elsewhere.clean())
  afterAll(() => elsewhere.release())

  /** As an engine does it: the job first, the hint after its commit. */
  async function bringWork(from: Listener, schema: TestSchema, queue = 'queue'): Promise<void> {
    await insertJob(schema.database, { queue })
    await from.notifier.publish(schema.database, [{ kind: 'available', queue }])
  }

  describe(shares ? "the contract, on the heartbeat's connection" : 'the contract', () => {
    test('a process learns of work that another one has brought', async () => {
      const [a, b] = [listener(bench.schema), listener(bench.schema)]
      await Promise.all([a.start(), b.start()])
      await bringWork(a, bench.schema)
      await eventually(() => expect(b.hints).toContainEqual(AVAILABLE))
    })

    test('and so does every other, and itself', async () => {
      const processes = Array.from({ length: 4 }, () => listener(bench.schema))
      await Promise.all(processes.map((process) => process.start()))
      await bringWork(processes[0]!, bench.schema)
      for (const { hints } of processes) await eventually(() => expect(hints).toContainEqual(AVAILABLE))
    })

    test('a process that only publishes need not have started', async () => {
      const [a, b] = [listener(bench.schema), listener(bench.schema)]
      await b.start()
      await bringWork(a, bench.schema)
      await eventually(() => expect(b.hints).toContainEqual(AVAILABLE))
    })

    test('processes of another schema hear nothing of it', async () => {
      const [a, b, there] = [listener(bench.schema), listener(bench.schema), listener(elsewhere)]
      await Promise.all([a.start(), b.start(), there.start()])
      await bringWork(a, bench.schema)
      await eventually(() => expect(b.hints).toContainEqual(AVAILABLE))
      await bringWork(there, elsewhere, 'other')
      await eventually(() => expect(there.hints).toContainEqual({ kind: 'available', queue: 'other' }))
      expect(there.hints).not.toContainEqual(AVAILABLE)
    })

    test('after stop nothing is received, and after another start it is', async () => {
      const [a, b, witness] = [listener(bench.schema), listener(bench.schema), listener(bench.schema)]
      await Promise.all([a.start(), b.start(), witness.start()])
      await b.notifier.stop()
      await bringWork(a, bench.schema)
      await eventually(() => expect(witness.hints).toContainEqual(AVAILABLE))
      expect(b.hints).toEqual([])
      await b.start()
      await bringWork(a, bench.schema)
      await eventually(() => expect(b.hints).toContainEqual(AVAILABLE))
    })

    test('start and stop can be called at any time, any number of times', async () => {
      const { notifier, start, hints } = listener(bench.schema)
      await notifier.stop()
      await notifier.stop()
      await Promise.all([start(), start()])
      await start()
      await Promise.all([notifier.stop(), notifier.stop()])
      await notifier.stop()
      const starting = start()
      await notifier.stop()
      await starting
      await notifier.stop()
      expect(hints).toEqual([])
    })

    test('started twice, a process is told once', async () => {
      const [a, b] = [listener(bench.schema), listener(bench.schema)]
      await b.start()
      await b.start()
      await a.notifier.publish(bench.schema.database, [AVAILABLE, { kind: 'available', queue: 'last' }])
      await insertJob(bench.schema.database, { queue: 'other' })
      await a.notifier.publish(bench.schema.database, [{ kind: 'available', queue: 'other' }])
      await eventually(() => expect(b.hints).toContainEqual({ kind: 'available', queue: 'other' }))
      expect(b.hints.filter((hint) => 'queue' in hint && hint.queue === 'queue').length).toBeLessThanOrEqual(
        1,
      )
    })

    test('any number of hints at once, and none at all', async () => {
      const [a, b] = [listener(bench.schema), listener(bench.schema)]
      await b.start()
      await insertJob(bench.schema.database)
      await a.notifier.publish(bench.schema.database, [])
      const many = Array.from({ length: 300 }, (_, n): Hint => ({ kind: 'cancel', jobId: `${n}` }))
      const longest: Hint = { kind: 'available', queue: 'q'.repeat(100) }
      await a.notifier.publish(bench.schema.database, [...many, longest, AVAILABLE])
      await eventually(() => expect(b.hints).toContainEqual(AVAILABLE))
    })

    test('carries the hints of engines: a job that one enqueues is run by another soon', async () => {
      const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => 'ran' })
      const rare = { heartbeat: '30s', deadAfter: '90s' } as const
      const worker = bench.engine({ tasks: [task], queues: { default: 1 }, notifier: make(), ...rare })
      const client = bench.engine({ notifier: make() })
      await worker.start()
      const now = await client.enqueue(task, null)
      expect((await jobIn(client, now.id, 'completed')).result).toBe('ran')
    })

    test('without a database start does not fail, publish settles, and stop ends it', async () => {
      const { schema, url } = { schema: bench.schema.schema, url: 'postgres://nobody@127.0.0.1:1/nothing' }
      const away = new Database(schema, {
        url,
        size: 1,
        applicationName: 'away',
        acquireTimeoutMs: 1_000,
        statementTimeoutMs: 1_000,
      })
      const session = shares ? away : null
      const { notifier, start } = listener(bench.schema, { database: away, directUrl: url, session })
      await start()
      await notifier.publish(away, [AVAILABLE]).catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'CONNECTION_FAILED' })
      })
      await notifier.stop()
      await away.end()
    })
  })
}
