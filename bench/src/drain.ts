import { FILL_FLOOR, FLOOR_TABLES } from './floor/tables.ts'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { differs, enqueueNumbered, historyFaults } from './support/triphase-jobs.ts'

const options = optionsOf()
const jobs = options.quick ? 3_000 : 60_000

function triphase(concurrency: number): Variant {
  return {
    name: `triphase, concurrency ${concurrency}`,
    async measure(stage) {
      await enqueueNumbered(stage, jobs)
      const program = new URL('./drain/triphase.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { jobs, concurrency })
      return { ...measured, faults: [...measured.faults, ...(await historyFaults(stage, jobs))] }
    },
  }
}

function floor(batch: number, history: boolean): Variant {
  return {
    name: floorName(batch, history),
    async measure(stage) {
      await stage.query(FLOOR_TABLES)
      await stage.query(FILL_FLOOR, [jobs])
      const program = new URL('./drain/floor.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { jobs, batch, history })
      return { ...measured, faults: [...measured.faults, ...(await floorFaults(stage, history))] }
    },
  }
}

function floorName(batch: number, history: boolean): string {
  return `floor by ${batch}, ${history ? 'history' : 'delete'}`
}

async function floorFaults(stage: Stage, history: boolean): Promise<string[]> {
  const [left] = await stage.query<{ live: number; kept: number }>(
    `SELECT (SELECT count(*) FROM job)::int AS live, count(DISTINCT id)::int AS kept FROM job_history`,
  )
  return [
    ...differs('live jobs left', left?.live, 0),
    ...differs('jobs in history', left?.kept, history ? jobs : 0),
  ]
}

const BATCHES = [10, 50, 500]
const CONCURRENCIES = [10, 50]

await runBenchmark(
  {
    name: 'drain',
    about: `${jobs.toLocaleString('en')} no-op jobs by one process with default settings, and bare SQL on two connections`,
    variants: [
      ...CONCURRENCIES.map(triphase),
      ...BATCHES.map((batch) => floor(batch, true)),
      ...BATCHES.map((batch) => floor(batch, false)),
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
    ratios: CONCURRENCIES.flatMap((concurrency) =>
      [floorName(concurrency, true), floorName(500, true), floorName(500, false)].map((to) => ({
        of: `triphase, concurrency ${concurrency}`,
        to,
        figure: 'jobsPerSecond',
      })),
    ),
  },
  options,
)
