import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { type Contestant, countFaults, fill, installed, needsOf } from './systems/contestant.ts'
import { BEST_GRAPHILE_WORKER, BEST_PG_BOSS, floor, triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const scale = options.quick ? 100 : 1

const TRIPHASE = triphaseAt(50)
const MANY = 300_000 / scale
const VERY_MANY = 3_000_000 / scale
const WINDOW_SECONDS = options.quick ? 0.1 : 5

/** Enqueues and drains while a transaction that was open before keeps vacuum from removing anything. */
function drain(contestant: Contestant, jobs: number): Variant {
  return {
    ...needsOf(contestant),
    name: jobs === MANY ? contestant.name : `${contestant.name}, ${jobs.toLocaleString('en')} jobs`,
    long: jobs !== MANY,
    async measure(stage) {
      const order = await installed(stage, contestant)
      const end = await heldSnapshot(stage)
      await fill(order, jobs)
      const program = new URL('./programs/drain.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { ...order, jobs, windowSeconds: WINDOW_SECONDS })
      await end()
      const faults = await countFaults(order, { live: 0, done: jobs })
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

async function heldSnapshot(stage: Stage): Promise<() => Promise<unknown>> {
  const client = await stage.connect()
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
  await client.query('SELECT count(*) FROM pg_class')
  return () => client.query('COMMIT')
}

const FLOOR = floor('by 500, history', { batch: 500 })
const LONG_TRIPHASE = `${TRIPHASE.name}, ${VERY_MANY.toLocaleString('en')} jobs`

await runBenchmark(
  {
    name: 'held-snapshot',
    about: `${MANY.toLocaleString('en')} no-op jobs, unless a line says otherwise, enqueued and drained while a REPEATABLE READ transaction is open: the first and the last ${WINDOW_SECONDS} s`,
    variants: [
      drain(TRIPHASE, MANY),
      drain(FLOOR, MANY),
      drain(BEST_GRAPHILE_WORKER, MANY),
      drain(BEST_PG_BOSS, MANY),
      drain(TRIPHASE, VERY_MANY),
    ],
    columns: [
      { figure: 'lastByFirst', title: 'last window\nby first', places: 2, spread: true },
      { figure: 'firstWindow', title: 'first window,\njobs/s', places: 0 },
      { figure: 'lastWindow', title: 'last window,\njobs/s', places: 0 },
      { figure: 'slowestWindow', title: 'slowest window,\njobs/s', places: 0 },
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0 },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: [
      { of: TRIPHASE.name, figure: 'lastByFirst', atLeast: 0.9 },
      { of: LONG_TRIPHASE, figure: 'lastByFirst', atLeast: 0.9 },
    ],
  },
  options,
)
