import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import { measureJobs } from './support/throughput.ts'
import { type Contestant, countFaults, fill, installed, needsOf } from './systems/contestant.ts'
import {
  BEST_BULLMQ,
  BEST_GRAPHILE_WORKER,
  BEST_PG_BOSS,
  bullmq,
  floor,
  graphileWorker,
  pgBoss,
  triphaseAt,
  triphaseForgetting,
} from './systems/peers.ts'

const options = optionsOf()
const jobs = options.quick ? 1_500 : 60_000

const TRIPHASE_10 = triphaseAt(10)
const TRIPHASE_50 = triphaseAt(50)
const FORGETTING_50 = triphaseForgetting(50)
const FLOOR_10 = floor('by 10, history', { batch: 10 })
const FLOOR_50 = floor('by 50, history', { batch: 50 })
const FLOOR_500 = floor('by 500, history', { batch: 500 })
const BARE_FLOOR = floor('by 500, delete', { batch: 500, history: false })
const DEFAULT_GRAPHILE_WORKER = graphileWorker('default', {})
const DEFAULT_PG_BOSS = pgBoss('default', {})
const DEFAULT_BULLMQ = bullmq('default', {})

function drain(contestant: Contestant, count: number = jobs): Variant {
  return {
    ...needsOf(contestant),
    name: contestant.name,
    async measure(stage) {
      const order = await installed(stage, contestant)
      await fill(order, count)
      const measured = await measureJobs(stage, new URL('./programs/drain.ts', import.meta.url), {
        ...order,
        jobs: count,
      })
      const faults = await countFaults(order, { live: 0, done: count })
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

const best = [BEST_GRAPHILE_WORKER.name, BEST_PG_BOSS.name, BEST_BULLMQ.name]
const goal = (of: Contestant, to: string | readonly string[], atLeast?: number) => ({
  of: of.name,
  to,
  figure: 'jobsPerSecond',
  ...(atLeast === undefined ? {} : { atLeast }),
})

await runBenchmark(
  {
    name: 'drain',
    about: `${jobs.toLocaleString('en')} waiting no-op jobs by one process; fewer where default settings are slow`,
    variants: [
      drain(TRIPHASE_10),
      drain(TRIPHASE_50),
      drain(FORGETTING_50),
      drain(FLOOR_10),
      drain(FLOOR_50),
      drain(FLOOR_500),
      drain(BARE_FLOOR),
      drain(BEST_GRAPHILE_WORKER),
      drain(BEST_PG_BOSS),
      drain(BEST_BULLMQ),
      drain(DEFAULT_GRAPHILE_WORKER, jobs / 10),
      // It takes one job every two seconds, and the first at once.
      drain(DEFAULT_PG_BOSS, options.quick ? 2 : 5),
      drain(DEFAULT_BULLMQ, jobs / 5),
    ],
    columns: [
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0, spread: true },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/job', places: 0 },
      { figure: 'nodeCpuUs', title: 'Node\nCPU µs/job', places: 0 },
      { figure: 'walBytes', title: 'WAL\nbytes/job', places: 0 },
      { figure: 'commits', title: 'commits\nper job', places: 3 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: [
      goal(TRIPHASE_50, FLOOR_500.name, 0.7),
      goal(TRIPHASE_50, best, 1.2),
      goal(TRIPHASE_10, FLOOR_10.name, 0.8),
      goal(TRIPHASE_10, best, 1),
      goal(FORGETTING_50, best, 1.4),
      goal(FORGETTING_50, BARE_FLOOR.name),
      goal(TRIPHASE_50, [DEFAULT_GRAPHILE_WORKER.name, DEFAULT_PG_BOSS.name], 6),
      goal(TRIPHASE_50, FLOOR_50.name),
    ],
  },
  options,
)
