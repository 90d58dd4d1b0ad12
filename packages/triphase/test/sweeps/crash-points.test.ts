import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { defineSweep, Permanent } from '../../src/index.ts'
import { type LocalCountingApi, startCountingApi } from '../support/counting-api.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'
import { type Fault, type FaultProxy, serverAddress, startFaultProxy } from '../support/fault-proxy.ts'
import { eventually, killWorkers } from '../support/processes.ts'
import { countSweep, type SweepProgramSettings, spawnSweeper } from './count-sweep.ts'
import { useRecords } from './table-of-records.ts'

/** What a run writes, in the order of its life. */
const STATEMENTS = {
  'begin the run': /SET state = 'running'/,
  'feed pages': /SET feed_no = feed_no \+ 1, cursor/,
  'open a page': /WITH before AS/,
  'ask for slots': /\.sweep_beat\(/,
  'mark records': /SKIP LOCKED[\s\S]*\.sweep_count\(/,
  'keep a try': /INSERT INTO [\w."]+sweep_record_try \(page_id, record_key, tries/,
  'end a page': /WITH run AS[\s\S]*DELETE FROM [\w."]+sweep_page[\s\S]*added AS/,
  'begin the next pass': /SET pass = pass \+ 1/,
  'complete the run': /SET state = 'completed'/,
} as const
type Statement = keyof typeof STATEMENTS

const RECORDS = 60
const CONCURRENCY = 4

const bench = useEngines()
const records = useRecords('sweep_crash_records')
let api: LocalCountingApi
let proxy: FaultProxy

beforeAll(async () => {
  api = await startCountingApi()
})
beforeEach(async () => {
  proxy = await startFaultProxy(serverAddress(testUrl()))
  await records.fill(RECORDS)
  api.behave({ kind: 'error' }, { key: '7', times: 1 })
})
afterEach(async () => {
  await killWorkers()
  await proxy.close()
  api.reset()
})
afterAll(() => api.close())

function settings(url: string): SweepProgramSettings {
  const { schema } = bench.schema
  return { url, schema, table: records.name, apiUrl: api.url, concurrency: CONCURRENCY, pageSize: 20 }
}

const sweep = () => defineSweep(countSweep(settings(''), (message) => new Permanent(message)))

/** Every record is done, was counted once, and the hook came once; returns the calls beyond one each and the retry. */
async function ended(): Promise<number> {
  const control = bench.engine({ tasks: [sweep()] }).sweep(sweep())
  const timeout = 20_000
  await eventually(async () => expect(await control.status()).toMatchObject({ state: 'completed' }), {
    timeout,
  })
  expect(await records.counts()).toEqual({ done: RECORDS })
  expect(await control.status()).toMatchObject({ done: RECORDS, errors: 0 })
  expect(api.callsFor('hook')).toBe(1)
  expect(await bench.schema.database.query('SELECT FROM triphase.sweep_page')).toEqual([])
  expect(await bench.schema.database.query('SELECT FROM triphase.sweep_record_try')).toEqual([])
  return api.calls - 1 - RECORDS - 1
}

function each(faults: readonly Fault[]): [Statement, Fault][] {
  return (Object.keys(STATEMENTS) as Statement[]).flatMap((name) =>
    faults.map((fault): [Statement, Fault] => [name, fault]),
  )
}

test.each(each(['hold-reply', 'hold-before']))(
  'killed at "%s" (%s): another process goes on',
  async (statement, fault) => {
    const held = proxy.onStatement(STATEMENTS[statement], fault)
    const first = spawnSweeper({ ...settings(proxy.url(bench.schema.url)), run: true })
    await held.hit
    first.kill()
    await first.exited
    // What was under way arrives after all, when it was held before.
    held.release()
    proxy.cutAll()
    spawnSweeper(settings(bench.schema.url))
    const more = await ended()
    expect(more).toBeGreaterThanOrEqual(0)
    expect(more).toBeLessThanOrEqual(CONCURRENCY)
  },
)

test.each(each(['cut-after', 'cut-before']))(
  'the connection is lost at "%s" (%s): nothing is called or counted twice',
  async (statement, fault) => {
    const cut = proxy.onStatement(STATEMENTS[statement], fault)
    const url = proxy.url(bench.schema.url)
    const engine = bench.engine({ url, tasks: [sweep()], queues: { default: 3 } })
    await engine.start()
    await engine.sweep(sweep()).run()
    await cut.hit
    expect(await ended()).toBe(0)
    // Through the proxy, which is closed after the test.
    await engine.stop({ graceMs: 0 })
  },
)
