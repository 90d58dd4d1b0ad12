import { ACKS, CLAIMS, HINTS } from './statements/shapes.ts'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import { measureJobs } from './support/throughput.ts'
import { countFaults, differs, fill, installed } from './systems/contestant.ts'
import { triphase } from './systems/peers.ts'

const options = optionsOf()
const batches = options.quick ? [10] : [1, 10, 200]
const callers = options.quick ? [16] : [1, 16]
const TRIPHASE = triphase('', {})

const EXECUTING = `SELECT count(*)::int AS jobs FROM triphase.job WHERE state = 'executing' AND claim_no = 1`
const FINISHED = `
SELECT (SELECT count(*) FROM triphase.job WHERE state <> 'completed')::int AS live,
       ((SELECT count(*) FROM triphase.job) + (SELECT count(*) FROM triphase.job_history))::int AS kept`

/** A process must be there to claim; and update in place needs a state that the table does not have. */
const PREPARE = `
INSERT INTO triphase.process (pid, name, host, dead_after_ms, queues) VALUES (1, 'bench', 'bench', 12000, '[]');
ALTER TABLE triphase.job DROP CONSTRAINT job_state`

function repeated(kind: 'claim' | 'ack', shape: string, batch: number): Variant {
  const jobs = (batch === 1 ? 6_000 : 60_000) / (options.quick ? 30 : 1)
  return {
    name: `${kind} by ${batch}: ${shape}`,
    async measure(stage) {
      const order = await installed(stage, TRIPHASE)
      await fill(order, jobs)
      await stage.query(PREPARE)
      const program = new URL('./statements/repeat.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { ...order, kind, shape, batch, jobs })
      const [claimed] = await stage.query<{ jobs: number }>(EXECUTING)
      const [finished] = await stage.query<{ live: number; kept: number }>(FINISHED)
      const faults =
        kind === 'claim'
          ? differs('claimed jobs', claimed?.jobs, jobs)
          : [...differs('live jobs', finished?.live, 0), ...differs('kept jobs', finished?.kept, jobs)]
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

function hinted(shape: string, atOnce: number): Variant {
  const jobs = 10_000 / (options.quick ? 30 : 1)
  return {
    name: `hint, ${atOnce} at once: ${shape}`,
    async measure(stage) {
      const order = await installed(stage, TRIPHASE)
      const listener = await stage.connect()
      await listener.query('LISTEN triphase_triphase')
      const program = new URL('./statements/enqueue.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { ...order, shape, atOnce, jobs: Math.floor(jobs) })
      const faults = await countFaults(order, { live: Math.floor(jobs), done: 0 })
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

await runBenchmark(
  {
    name: 'statements',
    about:
      'the statements that every job costs, beside other ways to write them; one connection, unless said',
    variants: [
      ...batches.flatMap((batch) => Object.keys(CLAIMS).map((shape) => repeated('claim', shape, batch))),
      ...batches.flatMap((batch) => Object.keys(ACKS).map((shape) => repeated('ack', shape, batch))),
      ...callers.flatMap((atOnce) => Object.keys(HINTS).map((shape) => hinted(shape, atOnce))),
    ],
    columns: [
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0, spread: true },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/job', places: 1 },
      { figure: 'walBytes', title: 'WAL\nbytes/job', places: 0 },
      { figure: 'commits', title: 'commits\nper job', places: 3 },
    ],
    comparisons: [],
  },
  options,
)
