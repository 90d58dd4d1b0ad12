import { LockWaits } from './processes/lock-waits.ts'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Child } from './support/child.ts'
import { measureJobs } from './support/throughput.ts'
import { countFaults, differs, fill, installed } from './systems/contestant.ts'
import { triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const jobs = options.quick ? 2_000 : 60_000
const CONTESTANT = triphaseAt(50)
const COUNTS = [1, 2, 4]
const nameOf = (processes: number): string => `${processes} ${processes === 1 ? 'process' : 'processes'}`

function sharing(processes: number): Variant {
  return {
    name: nameOf(processes),
    async measure(stage) {
      const order = await installed(stage, CONTESTANT)
      await fill(order, jobs)
      const waits = new LockWaits(stage)
      let acked: number[] = []
      const measured = await measureJobs(
        stage,
        new URL('./processes/worker.ts', import.meta.url),
        { ...order, jobs },
        {
          processes,
          meanwhile: async (children) => {
            acked = await allAcked(children)
          },
        },
      )
      const { figures, long } = await waits.end()
      const done = acked.reduce((sum, count) => sum + count, 0)
      return {
        figures: { ...measured.figures, ...figures, leastShare: (Math.min(...acked) * processes) / jobs },
        faults: [
          ...measured.faults,
          ...differs('jobs that were acked', done, jobs),
          ...(await countFaults(order, { live: 0, done: jobs })),
        ],
        notes: { ...measured.notes, acked, longLockWaits: long },
      }
    },
  }
}

/** What each process has acked once all of it together is everything. */
async function allAcked(children: readonly Child[]): Promise<number[]> {
  const acked = children.map(() => 0)
  let sum = 0
  await Promise.all(
    children.map(async (child, index) => {
      while (sum < jobs) {
        acked[index] = await child.heard<number>('acked')
        sum = acked.reduce((total, count) => total + count, 0)
      }
      child.tell('enough')
    }),
  )
  return acked
}

await runBenchmark(
  {
    name: 'processes',
    about: `${jobs.toLocaleString('en')} waiting no-op jobs of one queue, shared by several processes at concurrency 50`,
    variants: COUNTS.map(sharing),
    columns: [
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0, spread: true },
      { figure: 'longClaimWaits', title: 'lock waits\nover 5 ms\nof claims', places: 0, spread: true },
      { figure: 'longLockWaits', title: 'of all\nstatements', places: 0, spread: true },
      { figure: 'longestLockWaitMs', title: 'longest seen\nlock wait, ms', places: 1 },
      { figure: 'leastShare', title: 'least share\nof an equal one', places: 2 },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/job', places: 0 },
      { figure: 'nodeCpuUs', title: 'Node\nCPU µs/job', places: 0 },
      { figure: 'commits', title: 'commits\nper job', places: 3 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: COUNTS.flatMap((count) => [
      ...(count > 1 ? [{ of: nameOf(count), to: nameOf(1), figure: 'jobsPerSecond', atLeast: 1 }] : []),
      { of: nameOf(count), figure: 'longClaimWaits', atMost: 0 },
    ]),
  },
  options,
)
