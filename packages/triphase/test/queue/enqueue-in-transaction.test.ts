import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineStagedTask, defineTask, type Hint, type Notifier, unchecked } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()
const foreign = new pg.Pool({ connectionString: testUrl(), max: 2 })
beforeAll(async () => {
  await foreign.query(`CREATE TABLE ${table()} (id text PRIMARY KEY)`)
})
afterAll(async () => {
  await foreign.query(`DROP TABLE ${table()}`)
  await foreign.end()
})

function table(): string {
  return `${bench.schema.schema}.orders`
}

const ship = defineTask({
  name: 'ship',
  input: z.object({ order: z.string() }),
  run: ({ input }) => input.order,
})
const LONG = { heartbeat: '30s', deadAfter: '90s' } as const

/** Writes down what is published, and when. */
function recording(log: (string | Hint)[]): Notifier {
  return {
    name: 'recording',
    start: async () => {},
    publish: async (_database, hints) => {
      log.push(...hints)
    },
    stop: async () => {},
  }
}

async function orders(): Promise<string[]> {
  return (await foreign.query(`SELECT id FROM ${table()} ORDER BY id`)).rows.map(({ id }) => id)
}

test('the job exists when the transaction has committed, and runs', async () => {
  const engine = bench.engine({ tasks: [ship], queues: { default: 1 }, ...LONG })
  await engine.start()
  const { id } = await engine.transaction(async (tx) => {
    await tx.query(`INSERT INTO ${table()} VALUES ('a')`)
    const inserted = await engine.enqueue(ship, { order: 'a' }, { tx })
    expect(await engine.job(inserted.id)).toBeNull()
    return inserted
  })
  expect((await jobIn(engine, id, 'completed')).result).toBe('a')
  expect(await orders()).toContain('a')
})

test('after the end of the transaction no job is written with it', async () => {
  const engine = bench.engine()
  const late = await engine.transaction(async (tx) => () => engine.enqueue(ship, { order: 'late' }, { tx }))
  const ended = { code: 'INVALID_OPTIONS', message: expect.stringMatching(/^tx: .* has ended/) }
  await expect(late()).rejects.toMatchObject(ended)
  expect(await engine.counts()).toEqual([])
})

test('rolled back, it never existed', async () => {
  const published: Hint[] = []
  const engine = bench.engine({ notifier: recording(published) })
  let inserted: { id: string; created: boolean } | undefined
  const failed = engine.transaction(async (tx) => {
    await tx.query(`INSERT INTO ${table()} VALUES ('never')`)
    inserted = await engine.enqueue(ship, { order: 'never' }, { tx, uniqueKey: 'never' })
    throw new Error('changed my mind')
  })
  await expect(failed).rejects.toThrow('changed my mind')
  expect(inserted?.created).toBe(true)
  expect(await engine.job(inserted!.id)).toBeNull()
  expect(await orders()).not.toContain('never')
  expect(await engine.enqueue(ship, { order: 'again' }, { uniqueKey: 'never' })).toMatchObject({
    created: true,
  })
  await engine.stop()
  expect(published).toEqual([{ kind: 'available', queue: 'default' }])
})

test('many in one transaction', async () => {
  const engine = bench.engine()
  const rows = Array.from({ length: 50 }, (_, n) => ({ input: { order: `${n}` } }))
  const inserted = await engine.transaction((tx) => engine.enqueueMany(ship, rows, { tx }))
  expect(await engine.counts()).toEqual([{ queue: 'default', state: 'available', count: 50 }])
  expect(new Set(inserted.map(({ id }) => id)).size).toBe(50)
})

test('a refused input leaves the transaction as it was', async () => {
  const engine = bench.engine()
  await engine.transaction(async (tx) => {
    await expect(engine.enqueue(ship, { order: 5 as never }, { tx })).rejects.toThrow(/order: /)
    await engine.enqueue(ship, { order: 'fine' }, { tx })
  })
  expect(await engine.counts()).toEqual([{ queue: 'default', state: 'available', count: 1 }])
})

describe('hints', () => {
  test("of the engine's transaction are sent after the commit", async () => {
    const log: (string | Hint)[] = []
    const engine = bench.engine({ notifier: recording(log) })
    await engine.transaction(async (tx) => {
      await engine.enqueue(ship, { order: 'a' }, { tx })
      await engine.enqueue(ship, { order: 'b' }, { tx, queue: 'other' })
      // Longer than an enqueue of its own needs to send its hint.
      await engine.enqueue(ship, { order: 'c' }, { queue: 'outside' })
      await expect.poll(() => log.length).toBe(1)
      log.push('still open')
    })
    await engine.stop()
    expect(log).toEqual([
      { kind: 'available', queue: 'outside' },
      'still open',
      { kind: 'available', queue: 'default' },
      { kind: 'available', queue: 'other' },
    ])
  })

  test('wake the other processes as soon as it has committed', async () => {
    const worker = bench.engine({ tasks: [ship], queues: { default: 1 }, ...LONG })
    const client = bench.engine()
    await worker.start()
    const started = worker.telemetry.next('job:started')
    const { id, committedAt } = await client.transaction(async (tx) => {
      const inserted = await client.enqueue(ship, { order: 'a' }, { tx })
      return { ...inserted, committedAt: performance.now() }
    })
    expect((await started).jobId).toBe(id)
    expect(performance.now() - committedAt).toBeLessThan(2_000)
  })

  test('of a foreign transaction are not sent: the heartbeat finds the job', async () => {
    const worker = bench.engine({ tasks: [ship], queues: { default: 1 }, heartbeat: 200, deadAfter: 600 })
    await worker.start()
    const published: Hint[] = []
    const client = bench.engine({ notifier: recording(published) })
    const tx = await foreign.connect()
    await tx.query('BEGIN')
    const { id } = await client.enqueue(ship, { order: 'foreign' }, { tx })
    expect(await client.job(id)).toBeNull()
    await tx.query('COMMIT')
    tx.release()
    await jobIn(client, id, 'completed')
    await client.stop()
    expect(published).toEqual([])
  })

  test("of a foreign transaction are sent with its commit where notify is 'in-transaction'", async () => {
    const worker = bench.engine({ tasks: [ship], queues: { default: 1 }, ...LONG })
    const client = bench.engine()
    await worker.start()
    const started = worker.telemetry.next('job:started')
    const tx = await foreign.connect()
    for (const end of ['ROLLBACK', 'COMMIT']) {
      await tx.query('BEGIN')
      await client.enqueue(ship, { order: end }, { tx, notify: 'in-transaction' })
      await tx.query(end)
    }
    tx.release()
    const { jobId } = await started
    expect((await jobIn(client, jobId, 'completed')).result).toBe('COMMIT')
  })

  test('of a delayed job say when it is due', async () => {
    const log: Hint[] = []
    const engine = bench.engine({ notifier: recording(log) })
    await engine.enqueueMany(ship, [
      { input: { order: 'a' }, delay: '1h' },
      { input: { order: 'b' }, delay: '10m' },
      { input: { order: 'c' }, runAt: new Date(Date.now() + 7_200_000) },
    ])
    await engine.stop()
    expect(log).toEqual([{ kind: 'scheduled', inMs: 600_000 }])
  })

  test('a job that is not written sends none', async () => {
    const log: Hint[] = []
    const engine = bench.engine({ notifier: recording(log) })
    await engine.enqueue(ship, { order: 'a' }, { uniqueKey: 'a' })
    await expect.poll(() => log.length).toBe(1)
    await engine.enqueue(ship, { order: 'a' }, { uniqueKey: 'a' })
    await engine.stop()
    expect(log).toHaveLength(1)
  })
})

test('a job that a staged task enqueues in its commit is hinted at after that', async () => {
  const order = defineStagedTask({
    name: 'order',
    input: unchecked<{ id: string }>(),
    prepare: async () => null,
    call: async () => 'paid',
    commit: async ({ tx, input }) => void (await engine.enqueue(ship, { order: input.id }, { tx })),
  })
  const engine = bench.engine({ ...LONG, tasks: [ship, order], queues: { default: 2 } })
  await engine.start()
  const shipped = engine.telemetry.next('job:completed', ({ task }) => task === 'ship')
  await engine.enqueue(order, { id: '17' })
  expect(await shipped).toMatchObject({ result: '17' })
})
