import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { type Contestant, countFaults, differs, installed, needsOf } from './systems/contestant.ts'
import { bullmq, floor, graphileWorker, pgBoss, triphase } from './systems/peers.ts'
import { APPLICATION_TABLE } from './systems/system.ts'

const options = optionsOf()

interface Way {
  title: string
  atOnce: number
  batch: number
  /** Jobs of the quick ones and of the slow ones. */
  jobs: number
  fewerJobs: number
  withRow?: boolean
}

// Enough that the first second, in which Node still compiles, is not most of it: 10,000 single jobs of triphase took
// 156 µs each, 30,000 of them 120.
const ONE: Way = { title: 'one at a time', atOnce: 1, batch: 1, jobs: 30_000, fewerJobs: 3_000 }
const SIXTEEN: Way = { title: '16 at once', atOnce: 16, batch: 1, jobs: 40_000, fewerJobs: 4_000 }
const THOUSAND: Way = { title: 'by 1,000', atOnce: 1, batch: 1_000, jobs: 500_000, fewerJobs: 100_000 }
const WITH_ROW: Way = {
  title: 'with a row of the application',
  atOnce: 1,
  batch: 1,
  jobs: 12_000,
  fewerJobs: 2_000,
  withRow: true,
}

const TRIPHASE = triphase('', {})
const FLOOR = floor('', {})
const UNNAMED_FLOOR = floor('unnamed', { unnamed: true })
const UNNEST_FLOOR = floor('unnest', { many: 'unnest' })
const COPY_FLOOR = floor('copy', { many: 'copy' })
const GRAPHILE_WORKER = graphileWorker('', {})
const PG_BOSS = pgBoss('default', {})
const PG_BOSS_NOTIFYING = pgBoss('notify', { notify: true })
const BULLMQ = bullmq('', {})

const nameOf = ({ title }: Way, { name }: Contestant): string => `${title}: ${name}`

function enqueue(way: Way, contestant: Contestant): Variant {
  const isQuick = ['triphase', 'floor', 'bullmq'].includes(contestant.system)
  const jobs = (isQuick ? way.jobs : way.fewerJobs) / (options.quick ? 20 : 1)
  return {
    ...needsOf(contestant),
    name: nameOf(way, contestant),
    async measure(stage) {
      const order = await installed(stage, contestant)
      if (contestant.system === 'triphase') await listening(stage)
      if (way.withRow) await stage.query(APPLICATION_TABLE)
      const { atOnce, batch, withRow = false } = way
      const measured = await measureJobs(stage, new URL('./programs/enqueue.ts', import.meta.url), {
        ...order,
        jobs,
        atOnce,
        batch,
        withRow,
      })
      const faults = [
        ...(await countFaults(order, { live: jobs, done: 0 })),
        ...(withRow ? await rowFaults(stage, jobs) : []),
      ]
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

/** A hint costs more when somebody hears it. */
async function listening(stage: Stage): Promise<void> {
  const client = await stage.connect()
  await client.query('LISTEN triphase_triphase')
}

async function rowFaults(stage: Stage, jobs: number): Promise<string[]> {
  const [found] = await stage.query<{ rows: number }>('SELECT count(*)::int AS rows FROM purchase')
  return differs('rows of the application', found?.rows, jobs)
}

const goal = (way: Way, to: Contestant | readonly Contestant[], atLeast?: number) => ({
  of: nameOf(way, TRIPHASE),
  to: [to].flat().map((contestant) => nameOf(way, contestant)),
  figure: 'jobsPerSecond',
  ...(atLeast === undefined ? {} : { atLeast }),
})

const PEERS = [GRAPHILE_WORKER, PG_BOSS, PG_BOSS_NOTIFYING]

await runBenchmark(
  {
    name: 'enqueue',
    about:
      'jobs written by one process with default settings; hints of triphase are heard by another connection',
    variants: [
      // What comes at once goes the same way as what comes one at a time: a quick run does without.
      ...(options.quick ? [ONE] : [ONE, SIXTEEN]).flatMap((way) =>
        [TRIPHASE, FLOOR, UNNAMED_FLOOR, ...PEERS, BULLMQ].map((contestant) => enqueue(way, contestant)),
      ),
      ...[TRIPHASE, UNNEST_FLOOR, COPY_FLOOR, GRAPHILE_WORKER, PG_BOSS, BULLMQ].map((contestant) =>
        enqueue(THOUSAND, contestant),
      ),
      ...[TRIPHASE, FLOOR, GRAPHILE_WORKER, PG_BOSS].map((contestant) => enqueue(WITH_ROW, contestant)),
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
      goal(THOUSAND, [UNNEST_FLOOR, COPY_FLOOR], 0.65),
      goal(THOUSAND, [GRAPHILE_WORKER, PG_BOSS], 1.5),
      ...[ONE, SIXTEEN].flatMap((way) => [
        goal(way, FLOOR, 0.6),
        goal(way, UNNAMED_FLOOR),
        goal(way, [GRAPHILE_WORKER, PG_BOSS_NOTIFYING], 4),
      ]),
      goal(WITH_ROW, FLOOR),
      goal(WITH_ROW, [GRAPHILE_WORKER, PG_BOSS]),
    ],
  },
  options,
)
