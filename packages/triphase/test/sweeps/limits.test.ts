import {
  CamelCasePlugin,
  CompiledQuery,
  Kysely,
  ParseJSONResultsPlugin,
  PostgresDialect,
  type Transaction,
} from 'kysely'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createEngine, defineSweep, RetryAfter, type Transactor } from '../../src/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_limits_records')
const table = { name: records.name, key: 'id' }
const queues = { default: 4 }

/** Begins a run with so many calls a second; tells when each of them began. */
async function beginRated(name: string, pageSize: number, rate: number) {
  const begun: number[] = []
  const sweep = defineSweep<{ id: string }>({
    name,
    table,
    pageSize,
    rate,
    each: async () => {
      begun.push(performance.now())
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  const paceOf = (calls: number) => (calls - 1) / ((begun[calls - 1]! - begun[0]!) / 1_000)
  return { begun, control, paceOf }
}

test('a rate holds over all pages, and can be changed while the run works', async () => {
  await records.fill(60)
  const { begun, control, paceOf } = await beginRated('rated', 10, 10)
  await eventually(() => expect(begun.length).toBeGreaterThanOrEqual(15))
  expect(paceOf(15)).toBeLessThan(11)
  await control.change({ rate: null })
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 60, rate: null })
})

test('a rate holds where each page has one record', async () => {
  await records.fill(12)
  const { control, paceOf } = await beginRated('rated-pages', 1, 5)
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 12 })
  expect(paceOf(12)).toBeLessThan(5.5)
})

test('a Retry-After that one process was told slows the others down too', async () => {
  await records.fill(400)
  const begun: number[] = []
  let toldAt: number | undefined
  const sweepOf = (told: boolean) =>
    defineSweep<{ id: string }>({
      name: 'told',
      table,
      pageSize: 20,
      concurrency: 4,
      each: async () => {
        begun.push(performance.now())
        await new Promise((resolve) => setTimeout(resolve, 20))
        if (!told || toldAt !== undefined) return
        toldAt = performance.now()
        throw new RetryAfter(3_500)
      },
    })
  const engines = [true, false].map((told) =>
    bench.engine({ tasks: [sweepOf(told)], queues: { default: 2 } }),
  )
  await Promise.all(engines.map((engine) => engine.start()))
  const control = engines[1]!.sweep(sweepOf(false))
  await control.run()
  await eventually(() => expect(toldAt).toBeDefined())
  await eventually(async () => expect((await control.status()).slowMs).toBeGreaterThan(0))
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 400, errors: 0, calls: 401 })
  // Others hear of it with their next beat, within a second or so.
  expect(begun.filter((at) => at > toldAt! + 2_000 && at < toldAt! + 3_400)).toEqual([])
})

test('a call that is too slow is tried again and then marked; one that ignores its signal is given up', async () => {
  await records.fill(6)
  const calls: string[] = []
  const sweep = defineSweep<{ id: string }>({
    name: 'late',
    table,
    retries: 1,
    timeout: 60,
    backoff: { initial: 20, max: 20 },
    each: async ({ id }, { signal }) => {
      calls.push(id)
      if (id === '2')
        await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      if (id === '4') await new Promise(() => {})
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  await engine.sweep(sweep).run()
  await eventually(async () => expect(await records.counts()).toMatchObject({ done: 4, error: 1 }))
  expect(await records.rows('id = 2')).toMatchObject([
    { error_message: 'A call of sweep late took longer than 60 ms.' },
  ])
  expect(
    await eventually(
      async () => {
        const status = await engine.sweep(sweep).status()
        return status.state === 'completed' ? status : null
      },
      { timeout: 20_000 },
    ),
  ).toMatchObject({ done: 4, errors: 2 })
  expect(calls.filter((id) => id === '4')).toHaveLength(2)
})

test('a page whose records wait for their next try sleeps, and its tries are kept', async () => {
  await records.fill(10)
  const attempts: number[] = []
  const sweep = defineSweep<{ id: string }>({
    name: 'sleeping',
    table,
    retries: 1,
    backoff: { initial: '3s', max: '3s' },
    each: async ({ id }, { attempt }) => {
      if (id !== '5') return
      attempts.push(attempt)
      throw new Error('not yet')
    },
  })
  const first = bench.engine({ tasks: [sweep], queues })
  await first.start()
  await first.sweep(sweep).run()
  await eventually(async () => {
    const jobs = await bench.schema.database.query(
      `SELECT FROM triphase.job WHERE state = 'scheduled' AND input::jsonb ? 'page'`,
    )
    expect(jobs).toHaveLength(1)
  })
  await first.stop({ graceMs: 0 })
  const second = bench.engine({ tasks: [sweep], queues })
  await second.start()
  expect(await second.sweep(sweep).settled()).toMatchObject({
    state: 'completed',
    done: 9,
    errors: 1,
    calls: 11,
  })
  expect(attempts).toEqual([1, 2])
})

test('rate and time left are those of the last minute of running', async () => {
  await records.fill(10)
  const sweep = defineSweep<{ id: string }>({ name: 'eta', table, each: async () => {} })
  const control = bench.engine({ tasks: [sweep] }).sweep(sweep)
  await control.run()
  await bench.schema.database.query(`
    UPDATE triphase.sweep_run SET state = 'running', running_since = clock_timestamp(), started_at = clock_timestamp(),
      total = 1000, done = 400, errors = 100, samples = json_build_array(json_build_object(
        'at', extract(epoch FROM clock_timestamp() - interval '10 seconds') * 1000, 'settled', 400))`)
  const { recordsPerSecond, etaMs } = await control.status()
  expect(recordsPerSecond).toBeCloseTo(10, 0)
  expect(etaMs! / 1_000).toBeCloseTo(50, -1)
  await control.pause()
  expect(await control.status()).toMatchObject({ recordsPerSecond: null, etaMs: null })
})

test('the engine needs no right on the table, and the application none on the runs', async () => {
  await records.fill(40)
  const { schema } = bench.schema
  const name = `sweeper_${process.pid}`
  const url = (user: string) => {
    const changed = new URL(testUrl())
    changed.username = user
    changed.password = 'secret'
    return changed.href
  }
  const sweep = defineSweep<{ id: string }>({ name: 'roles', table, each: async () => 'fine' })
  await records.pool.query(`
    CREATE ROLE ${name}_engine LOGIN PASSWORD 'secret'; CREATE ROLE ${name}_app LOGIN PASSWORD 'secret';
    GRANT USAGE ON SCHEMA ${schema} TO ${name}_engine, ${name}_app;
    GRANT ALL ON ALL TABLES IN SCHEMA ${schema} TO ${name}_engine;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA ${schema} TO ${name}_engine;
    GRANT SELECT, UPDATE ON ${records.name} TO ${name}_app`)
  const engine = bench.engine({
    tasks: [sweep],
    queues,
    engine: { url: url(`${name}_engine`), size: 3 },
    application: { url: url(`${name}_app`), size: 2 },
  })
  try {
    expect(await engine.sweep(sweep).check()).toEqual([expect.stringContaining('may not write')])
    await records.pool.query(`GRANT SELECT, UPDATE ON ${schema}.sweep_page TO ${name}_app`)
    await engine.start()
    await engine.sweep(sweep).run()
    expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 40 })
  } finally {
    await engine.stop({ graceMs: 0 })
    for (const role of ['engine', 'app'])
      await records.pool.query(`DROP OWNED BY ${name}_${role}; DROP ROLE ${name}_${role}`)
  }
})

test('with another query library, whatever its plugins make of names and values', async () => {
  await records.fill(50)
  const db = new Kysely<Record<string, never>>({
    dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: testUrl(), max: 2 }) }),
    plugins: [new CamelCasePlugin(), new ParseJSONResultsPlugin()],
  })
  const transactor: Transactor<Transaction<Record<string, never>>> = {
    transaction: (work) => db.transaction().execute(work),
    execute: (tx, text, values) => tx.executeQuery(CompiledQuery.raw(text, [...values])),
  }
  const seen: unknown[] = []
  const sweep = defineSweep<{ id: string }>({
    name: 'kysely',
    table,
    each: async (row) => {
      seen.push(row)
      if (row.id === '7') throw new Error('no')
      return 'fine'
    },
    retries: 0,
  })
  const engine = createEngine({
    url: bench.schema.url,
    schema: bench.schema.schema,
    transactor,
    tasks: [sweep],
    queues,
  })
  try {
    await engine.start()
    await engine.sweep(sweep).run()
    expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 49, errors: 1 })
    expect(Object.keys(seen[0] as object)).toEqual(['id', 'body', 'status', 'result', 'errorMessage'])
    expect(await engine.sweep(sweep).retryErrors({ all: true })).toBe(1)
  } finally {
    await engine.stop({ graceMs: 0 })
    await db.destroy()
  }
})

test('a budget may have more calls than an integer of Postgres holds', async () => {
  await records.fill(20)
  const sweep = defineSweep({
    name: 'rich',
    table,
    pageSize: 10,
    budget: { calls: Number.MAX_SAFE_INTEGER },
    each: async () => {},
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  expect(await control.settled()).toMatchObject({ state: 'completed', done: 20 })
})

test.each([[-1], [1.5], [2 ** 60]])('a budget is not changed to %d calls', async (calls) => {
  const sweep = defineSweep({ name: 'unchanged', table, each: async () => {} })
  const control = bench.engine().sweep(sweep)
  await control.run()
  await expect(control.change({ budget: { calls } })).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
})

test.each(['pause', 'stop'] as const)('what calls have spent that end after a %s is counted', async (how) => {
  await records.fill(20)
  const gate = Promise.withResolvers<void>()
  const sweep = defineSweep<{ id: string }>({
    name: `spent-${how}`,
    table,
    concurrency: 4,
    each: async (_record, { spend }) => {
      await gate.promise
      spend(1)
    },
  })
  const engine = bench.engine({ tasks: [sweep], queues })
  const watching = bench.engine().sweep(sweep)
  await engine.start()
  const control = engine.sweep(sweep)
  await control.run()
  await eventually(async () => expect(await watching.status()).toMatchObject({ calls: 4 }))
  const ended = how === 'pause' ? control.pause() : engine.stop()
  // The page has heard of it: it wants no more than it has.
  await eventually(async () =>
    expect(
      await bench.schema.database.query('SELECT FROM triphase.sweep_page WHERE wanted = 4'),
    ).toHaveLength(1),
  )
  gate.resolve()
  await ended
  await eventually(async () => expect(await records.counts()).toMatchObject({ done: 4 }))
  await eventually(async () => expect(await watching.status()).toMatchObject({ done: 4, calls: 4, spent: 4 }))
})
