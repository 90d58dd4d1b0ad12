import pg from 'pg'
import { expect, test } from 'vitest'
import { defineSweep } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually } from '../support/processes.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_neighbour_records')
const table = { name: records.name, key: 'id' }
const queues = { default: 4 }

async function withClient<Value>(work: (client: pg.Client) => Promise<Value>): Promise<Value> {
  const client = new pg.Client({ connectionString: testUrl() })
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

test('a row that somebody else has locked holds up no other', async () => {
  await records.fill(100)
  const sweep = defineSweep<{ id: string }>({
    name: 'locked',
    table,
    concurrency: 3,
    each: async () => 'fine',
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await withClient(async (client) => {
    await client.query('BEGIN')
    await client.query(`SELECT FROM ${records.name} WHERE id = 5 FOR UPDATE`)
    await control.run()
    await eventually(async () => expect(await records.counts()).toEqual({ done: 99, pending: 1 }))
    expect(await control.status()).toMatchObject({ state: 'running', slots: expect.any(Number), done: 99 })
    await client.query('COMMIT')
  })
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 100, calls: 100 })
})

test('a database without room for marks is told, and waited for', async () => {
  await records.fill(5)
  const proxy = await startFaultProxy(serverAddress(testUrl()))
  try {
    const sweep = defineSweep({ name: 'no-room', table, each: async () => 'fine' })
    proxy.onStatement(/\.sweep_count\(/, 'error', { sqlstate: '53100' })
    const engine = bench.engine({ tasks: [sweep], queues, application: { url: proxy.url(testUrl()) } })
    const failed = engine.telemetry.next('statement:failed')
    await engine.start()
    const control = engine.sweep(sweep)
    await control.run()
    expect(await failed).toMatchObject({
      statement: 'page of sweep no-room',
      error: { code: '53100' },
      retryInMs: expect.any(Number),
    })
    expect(await control.settled()).toMatchObject({ state: 'completed', done: 5, calls: 5 })
  } finally {
    await proxy.close()
  }
})

test('a run begins where counting its records takes longer than the application allows', async () => {
  await records.fill(5)
  const proxy = await startFaultProxy(serverAddress(testUrl()))
  try {
    const gate = Promise.withResolvers<void>()
    const sweep = defineSweep({ name: 'slow-count', table, each: () => gate.promise })
    const counting = /SELECT count\(\*\)::text .* = 'pending'/
    proxy.onStatement(counting, 'error', { sqlstate: '57014', times: 1_000 })
    const engine = bench.engine({ tasks: [sweep], queues, application: { url: proxy.url(testUrl()) } })
    await engine.start()
    const control = engine.sweep(sweep)
    await control.run()
    await eventually(async () =>
      expect(await control.status()).toMatchObject({ state: 'running', totalEstimated: true }),
    )
    gate.resolve()
    expect(await control.settled()).toMatchObject({ state: 'completed', total: 5, done: 5 })
  } finally {
    await proxy.close()
  }
})

test('a record that waits for its next try is called as it is then, if it is still pending', async () => {
  await records.fill(100)
  const calls: string[] = []
  const [gate, firstFailed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  let failed = 0
  const sweep = defineSweep<{ id: string; body: string }>({
    name: 'waiting',
    table,
    concurrency: 5,
    backoff: { initial: '3s', max: '3s' },
    each: async ({ id, body }, { attempt }) => {
      calls.push(`${id}: ${body}`)
      if (Number(id) <= 3 && attempt === 1) {
        if (++failed === 3) firstFailed.resolve()
        throw new Error('not yet')
      }
      // The page stays at work, so that nothing of it is read again.
      await gate.promise
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  await firstFailed.promise
  // Five others fill the slots until the gate opens.
  await eventually(() => expect(calls).toHaveLength(8))
  await records.pool.query(`
    DELETE FROM ${records.name} WHERE id = 1;
    UPDATE ${records.name} SET status = 'done' WHERE id = 2;
    UPDATE ${records.name} SET body = 'mended' WHERE id = 3`)
  await eventually(async () => {
    const due = `SELECT FROM triphase.sweep_record_try WHERE due_at < clock_timestamp() - interval '200 ms'`
    expect(await bench.schema.database.query(due)).toHaveLength(3)
  })
  gate.resolve()
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 98, calls: 101 })
  expect(calls.filter((call) => /^[123]:/.test(call)).toSorted()).toEqual([
    '1: record 1',
    '2: record 2',
    '3: mended',
    '3: record 3',
  ])
})

test('rows come, change and go all the time that a run works; nobody waits', async () => {
  await records.fill(2_000)
  const seen = new Set<string>()
  const sweep = defineSweep<{ id: string }>({
    name: 'moving',
    table,
    concurrency: 8,
    pageSize: 100,
    each: async ({ id }) => {
      seen.add(id)
      await new Promise((resolve) => setTimeout(resolve, 2))
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  await eventually(() => expect(seen.size).toBeGreaterThan(50))
  const over = control.settled()
  let working = true
  void over.finally(() => {
    working = false
  })
  let rounds = 0
  await withClient(async (client) => {
    // Of a session: through a pooler each transaction sets it for itself. A statement that waits fails the test.
    const alone = async (statement: string) => {
      await client.query(`BEGIN; SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '300ms'`)
      await client.query(statement)
      await client.query('COMMIT')
    }
    for (; working && rounds < 200; rounds++) {
      const id = 1_000_000 + rounds
      await alone(`UPDATE ${records.name} SET body = body || '!' WHERE id % 200 = ${rounds}`)
      await alone(`DELETE FROM ${records.name} WHERE id BETWEEN 1801 AND 2000 AND id % 40 = ${rounds % 40}`)
      if (rounds < 5) {
        await alone(
          `INSERT INTO ${records.name} (id, body) VALUES (${-id}, 'below the cursor'), (${id}, 'above it')`,
        )
      }
    }
  })
  expect(rounds).toBeGreaterThan(5)
  expect(await over).toMatchObject({ state: 'completed', errors: 0 })
  expect(await records.rows("status <> 'done'")).toEqual([])
  for (let n = 0; n < 5; n++)
    expect([seen.has(`${-1_000_000 - n}`), seen.has(`${1_000_000 + n}`)]).toEqual([true, true])
  expect(seen.size).toBeLessThanOrEqual(2_010)
})

test('a result that the database refuses is an error of its record alone', async () => {
  await records.fill(50)
  const sweep = defineSweep<{ id: string }>({
    name: 'refused',
    table,
    concurrency: 10,
    each: async ({ id }) => (id === '20' ? 'nul \u0000' : id === '21' ? () => {} : 'fine'),
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 48, errors: 2 })
  expect(await records.rows("status = 'error'")).toMatchObject([
    { id: '20', error_message: expect.stringContaining('the database refused the result') },
    { id: '21', error_message: expect.stringContaining('cannot be written as JSON') },
  ])
})

test('a table that ignores marks, as by row-level security, fails the run instead of holding it for ever', async () => {
  await records.fill(20)
  const { schema } = bench.schema
  const role = `sweep_reader_${process.pid}`
  await records.pool.query(`
    CREATE ROLE ${role} LOGIN PASSWORD 'secret'; GRANT SELECT, UPDATE ON ${records.name} TO ${role};
    GRANT USAGE ON SCHEMA ${schema} TO ${role}; GRANT SELECT, UPDATE ON ${schema}.sweep_page TO ${role};
    ALTER TABLE ${records.name} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY readable ON ${records.name} FOR SELECT USING (true)`)
  const url = new URL(testUrl())
  url.username = role
  url.password = 'secret'
  const sweep = defineSweep({ name: 'ignored', table, concurrency: 3, each: async () => 'fine' })
  const engine = bench.engine({ tasks: [sweep], queues, application: { url: url.href, size: 2 } })
  try {
    await engine.start()
    const control = engine.sweep(sweep)
    await control.run()
    const status = await control.settled()
    expect(status).toMatchObject({ state: 'failed', done: 0, calls: 3 })
    expect(status.reason).toMatch(/does not take the mark of \["\d+"\].*row-level security/)
  } finally {
    await engine.stop({ graceMs: 0 })
    await records.pool.query(`
      DROP POLICY readable ON ${records.name}; ALTER TABLE ${records.name} DISABLE ROW LEVEL SECURITY;
      DROP OWNED BY ${role}; DROP ROLE ${role}`)
  }
})

test('a reason that is longer than its column is cut', async () => {
  await records.fill(3)
  await records.pool.query(`ALTER TABLE ${records.name} ALTER error_message TYPE varchar(20)`)
  try {
    const sweep = defineSweep({
      name: 'long-reason',
      table,
      retries: 0,
      each: async () => {
        throw new Error('the file cannot be read: it is no image')
      },
    })
    const engine = bench.engine({ tasks: [sweep], queues })
    await engine.start()
    const control = engine.sweep(sweep)
    await control.run()
    expect(await control.settled()).toMatchObject({ state: 'completed', errors: 3 })
    expect(await records.rows('id = 1')).toMatchObject([{ error_message: 'the file cannot be r' }])
  } finally {
    await records.pool.query(`ALTER TABLE ${records.name} ALTER error_message TYPE text`)
  }
})

test('a table that takes no marks fails the run, with the reason', async () => {
  await records.fill(50)
  await records.pool.query(
    `ALTER TABLE ${records.name} ADD CONSTRAINT nothing_done CHECK (status = 'pending')`,
  )
  try {
    const sweep = defineSweep<{ id: string }>({ name: 'unmarkable', table, each: async () => 'fine' })
    const engine = bench.engine({ tasks: [sweep], queues })
    await engine.start()
    await engine.sweep(sweep).run()
    expect(await engine.sweep(sweep).settled()).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('nothing_done'),
    })
    await eventually(async () => expect(await engine.counts()).toEqual([]))
  } finally {
    await records.pool.query(`ALTER TABLE ${records.name} DROP CONSTRAINT nothing_done`)
  }
})

test('a stop lets calls under way end and begins no others; the next process goes on', async () => {
  await records.fill(60)
  const gate = Promise.withResolvers<void>()
  const calls: string[] = []
  const sweep = defineSweep<{ id: string }>({
    name: 'stopped',
    table,
    concurrency: 5,
    each: async ({ id }) => {
      calls.push(id)
      await gate.promise
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues, heartbeat: '100ms', deadAfter: '1s' })
  await engine.start()
  await engine.sweep(sweep).run()
  await eventually(() => expect(calls.length).toBe(5))
  const stopped = engine.stop({ graceMs: 20_000 })
  // The page learns of it with a beat, and with the next one wants no more than it has.
  await eventually(async () => {
    const pages = await bench.schema.database.query('SELECT wanted FROM triphase.sweep_page')
    expect(pages).toEqual([{ wanted: 5 }])
  })
  gate.resolve()
  await stopped
  expect(await records.counts()).toEqual({ done: 5, pending: 55 })
  const next = bench.engine({ tasks: [sweep], queues })
  await next.start()
  expect(await next.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 60, calls: 60 })
  expect(new Set(calls).size).toBe(60)
})

test('a run whose steward is gone is interrupted, and goes on when run again', async () => {
  await records.fill(40)
  const sweep = defineSweep<{ id: string }>({ name: 'orphaned', table, each: async () => 'fine' })
  const idle = bench.engine({ tasks: [sweep] })
  const control = idle.sweep(sweep)
  await control.run()
  expect(await control.status()).toMatchObject({ state: 'interrupted' })
  await bench.schema.database.query('DELETE FROM triphase.job')
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  expect(await control.status()).toMatchObject({ state: 'interrupted' })
  expect(await control.run()).toMatchObject({ created: false })
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 40 })
})
