import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Memory } from './support/memory.ts'
import { measureJobs } from './support/throughput.ts'
import { createRecords, recordFaults } from './sweep/records.ts'
import type { SweepOrder } from './sweep/worker.ts'

const options = optionsOf()
const MANY = options.quick ? 20_000 : 1_000_000
const FEWER = options.quick ? 2_000 : 100_000
const CONCURRENCY = 50
const CALL_MS = 5

type Way = Pick<SweepOrder, 'loop' | 'callMs'>

function over(records: number, name: string, way: Way): Variant {
  return {
    name,
    async measure(stage) {
      await createRecords(stage.url, records)
      const order: SweepOrder = { url: stage.url, jobs: records, concurrency: CONCURRENCY, ...way }
      const measured = await measureJobs(stage, new URL('./sweep/worker.ts', import.meta.url), order)
      return { ...measured, faults: [...measured.faults, ...(await recordFaults(stage.url, records))] }
    },
  }
}

const memory: Variant = {
  name: 'triphase, memory',
  async measure(stage) {
    await createRecords(stage.url, MANY)
    const order = { url: stage.url, records: MANY, concurrency: CONCURRENCY }
    const worker = stage.start(new URL('./sweep/memory-worker.ts', import.meta.url), order, ['--expose-gc'])
    const tenth = await worker.heard<Memory>('memory')
    const all = await worker.heard<Memory>('memory')
    const faults = await worker.heard<string[]>('faults')
    await worker.ended
    return {
      figures: { rssAfterTenth: tenth.rss, rssAfterAll: all.rss, allByTenth: all.rss / tenth.rss },
      faults: [...faults, ...(await recordFaults(stage.url, MANY))],
    }
  },
}

const SWEEP = 'triphase'
const LOOP = 'bare loop'
const SAME_LOOP = 'bare loop of the same statements'
const NAMED_LOOP = 'bare loop, named statements'
const SLOWER_SWEEP = `triphase, ${CALL_MS} ms a call`
const SLOWER_LOOP = `bare loop, ${CALL_MS} ms a call`
const rate = { figure: 'jobsPerSecond' }

await runBenchmark(
  {
    name: 'sweep',
    about: `${MANY.toLocaleString('en')} records, ${CONCURRENCY} at a time, by one process; a call takes no time, or ${CALL_MS} ms with ${FEWER.toLocaleString('en')} records`,
    variants: [
      over(MANY, SWEEP, { callMs: 0 }),
      over(MANY, SAME_LOOP, { callMs: 0, loop: 'same' }),
      over(MANY, LOOP, { callMs: 0, loop: 'least' }),
      over(MANY, NAMED_LOOP, { callMs: 0, loop: 'named' }),
      over(FEWER, SLOWER_SWEEP, { callMs: CALL_MS }),
      over(FEWER, SLOWER_LOOP, { callMs: CALL_MS, loop: 'least' }),
      memory,
    ],
    columns: [
      { figure: 'jobsPerSecond', title: 'records/s', places: 0, spread: true },
      { figure: 'lateByEarly', title: 'time at 97%\nby that at 3%', places: 2, spread: true },
      { figure: 'longestTransactionMs', title: 'longest seen\ntransaction, ms', places: 1 },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/record', places: 0 },
      { figure: 'nodeCpuUs', title: 'Node\nCPU µs/record', places: 0 },
      { figure: 'walBytes', title: 'WAL\nbytes/record', places: 0 },
      { figure: 'commits', title: 'commits\nper record', places: 3 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'rssAfterTenth', title: 'RSS after\na tenth', places: 1 },
      { figure: 'allByTenth', title: 'RSS after all\nby that', places: 2, spread: true },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: [
      { of: SWEEP, to: SAME_LOOP, ...rate, atLeast: 0.9 },
      { of: SWEEP, to: LOOP, ...rate },
      { of: SLOWER_SWEEP, to: SLOWER_LOOP, ...rate, atLeast: 0.9 },
      { of: SWEEP, to: NAMED_LOOP, ...rate },
      { of: SWEEP, figure: 'lateByEarly', atMost: 1.1 },
      { of: SWEEP, to: LOOP, figure: 'longestTransactionMs' },
      { of: memory.name, figure: 'allByTenth', atMost: 1.1 },
    ],
  },
  options,
)
