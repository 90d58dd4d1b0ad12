import { createEngine } from 'triphase'
import { FLOOR_TABLES } from './floor/tables.ts'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { differs } from './support/triphase-jobs.ts'

const options = optionsOf()

interface Way {
  title: string
  atOnce: number
  batch: number
  jobs: number
}

const few = options.quick ? 10 : 1
const ONE: Way = { title: 'one at a time', atOnce: 1, batch: 1, jobs: 10_000 / few }
const SIXTEEN: Way = { title: '16 at once', atOnce: 16, batch: 1, jobs: 20_000 / few }
const THOUSAND: Way = { title: 'by 1,000', atOnce: 1, batch: 1_000, jobs: 100_000 / few }

function triphase({ title, ...way }: Way): Variant {
  return {
    name: `triphase, ${title}`,
    async measure(stage) {
      await migrated(stage)
      await listening(stage)
      const program = new URL('./enqueue/triphase.ts', import.meta.url)
      const measured = await measureJobs(stage, program, way)
      return { ...measured, faults: await faultsOf(stage, 'triphase.job', way.jobs) }
    },
  }
}

function floor({ title, ...way }: Way, statement: 'values' | 'unnamed' | 'unnest' | 'copy'): Variant {
  return {
    name: floorName(title, statement),
    async measure(stage) {
      await stage.query(FLOOR_TABLES)
      const program = new URL('./enqueue/floor.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { ...way, way: statement })
      return { ...measured, faults: await faultsOf(stage, 'job', way.jobs) }
    },
  }
}

function floorName(title: string, statement: string): string {
  return `floor, ${title}, ${statement}`
}

async function migrated(stage: Stage): Promise<void> {
  const engine = createEngine({ url: stage.url })
  await engine.migrate()
  await engine.stop()
}

/** A hint costs more when somebody hears it. */
async function listening(stage: Stage): Promise<void> {
  const client = await stage.connect()
  await client.query('LISTEN triphase_triphase')
}

async function faultsOf(stage: Stage, table: 'job' | 'triphase.job', jobs: number): Promise<string[]> {
  const [found] = await stage.query<{ rows: number; jobs: number }>(
    `SELECT count(*) FILTER (WHERE state = 'available')::int AS rows,
            count(DISTINCT (input ->> 'n')::int)::int AS jobs
     FROM ${table}`,
  )
  return [...differs('available jobs', found?.rows, jobs), ...differs('different jobs', found?.jobs, jobs)]
}

const ratio = (of: string, to: string) => ({ of: `triphase, ${of}`, to, figure: 'jobsPerSecond' })

await runBenchmark(
  {
    name: 'enqueue',
    about: 'jobs written by one process, hints on and heard by another connection; and bare SQL',
    variants: [
      triphase(ONE),
      floor(ONE, 'values'),
      floor(ONE, 'unnamed'),
      triphase(SIXTEEN),
      floor(SIXTEEN, 'values'),
      floor(SIXTEEN, 'unnamed'),
      triphase(THOUSAND),
      floor(THOUSAND, 'unnest'),
      floor(THOUSAND, 'copy'),
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
    ratios: [
      ratio(ONE.title, floorName(ONE.title, 'values')),
      ratio(ONE.title, floorName(ONE.title, 'unnamed')),
      ratio(SIXTEEN.title, floorName(SIXTEEN.title, 'values')),
      ratio(SIXTEEN.title, floorName(SIXTEEN.title, 'unnamed')),
      ratio(THOUSAND.title, floorName(THOUSAND.title, 'unnest')),
      ratio(THOUSAND.title, floorName(THOUSAND.title, 'copy')),
    ],
  },
  options,
)
