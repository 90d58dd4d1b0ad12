import { expect, test } from 'vitest'
import { defineTask, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { serverAddress, startFaultProxy } from '../support/fault-proxy.ts'

const bench = useEngines()
const task = defineTask({ name: 'task', input: unchecked<unknown>(), run: ({ input }) => input })
const INSERT = /\.insert_(alike_)?jobs?\(/

async function withEngine(
  work: (
    engine: ReturnType<typeof bench.engine>,
    proxy: Awaited<ReturnType<typeof startFaultProxy>>,
  ) => Promise<void>,
): Promise<void> {
  const { url } = bench.schema
  const proxy = await startFaultProxy({ ...serverAddress(url), log: true })
  const engine = bench.engine({ url: proxy.url(url) })
  try {
    await work(engine, proxy)
  } finally {
    await engine.stop({ graceMs: 0 })
    await proxy.close()
  }
}

const numbers = Array.from({ length: 20 }, (_, index) => index)

test('calls that come while one is being written go together in the next statement, in order', async () => {
  await withEngine(async (engine, proxy) => {
    const first = proxy.onStatement(INSERT, 'hold-before')
    const calls = numbers.map((n) => engine.enqueue(task, n))
    await first.hit
    first.release()
    const inserted = await Promise.all(calls)
    expect(proxy.statements.filter(({ sql }) => INSERT.test(sql))).toHaveLength(2)
    const jobs = await Promise.all(inserted.map(({ id }) => engine.job(id)))
    expect(jobs.map((job) => job?.input)).toEqual(numbers)
    const inLine = await bench.schema.database.query<{ n: string }>(
      'SELECT input::text AS n FROM triphase.job ORDER BY position',
    )
    expect(inLine.map(({ n }) => Number(n))).toEqual(numbers)
  })
})

test('a job that the database refuses is the error of its caller alone', async () => {
  const { database } = bench.schema
  await database.query(`ALTER TABLE triphase.job ADD CONSTRAINT not_7 CHECK (input::text <> '7')`)
  try {
    const engine = bench.engine()
    const outcomes = await Promise.allSettled(numbers.map((n) => engine.enqueue(task, n)))
    expect(outcomes.map(({ status }) => status)).toEqual(
      numbers.map((n) => (n === 7 ? 'rejected' : 'fulfilled')),
    )
    expect(outcomes[7]).toMatchObject({ reason: { message: expect.stringContaining('not_7') } })
    const rows = await database.query<{ n: string }>('SELECT input::text AS n FROM triphase.job')
    expect(rows.map(({ n }) => Number(n)).sort((a, b) => a - b)).toEqual(numbers.filter((n) => n !== 7))
  } finally {
    await database.query('ALTER TABLE triphase.job DROP CONSTRAINT not_7')
  }
})

test('a connection that fails is the error of those whose jobs it carried, and the next calls are written', async () => {
  await withEngine(async (engine, proxy) => {
    const first = proxy.onStatement(INSERT, 'hold-before')
    const calls = numbers.map((n) => engine.enqueue(task, n))
    const outcomes = Promise.allSettled(calls)
    await first.hit
    const cut = proxy.onStatement(/\.insert_alike_jobs\(/, 'cut-before')
    first.release()
    const [alone, ...together] = await outcomes
    expect(cut.hits).toBe(1)
    expect(alone).toMatchObject({ status: 'fulfilled' })
    for (const outcome of together)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'CONNECTION_FAILED' } })
    await engine.enqueue(task, 'later')
    expect(await bench.schema.database.query('SELECT FROM triphase.job')).toHaveLength(2)
  })
})
