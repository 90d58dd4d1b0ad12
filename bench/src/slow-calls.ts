import { CLAIM_ALL, FILL_FLOOR, FLOOR_TABLES, STAGED_FLOOR_TABLES } from './floor/tables.ts'
import { ANALYSIS_TABLE } from './slow-calls/analysis.ts'
import type { SlowCallsOrder } from './slow-calls/call.ts'
import { type Measured, optionsOf, type Round, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { type Contestant, countFaults, differs, fill, installed, needsOf } from './systems/contestant.ts'
import { bullmq, floor as floorOf, graphileWorker, pgBoss, triphase } from './systems/peers.ts'

const options = optionsOf()

interface Load {
  jobs: number
  /** Jobs at a time. */
  concurrency: number
  callMs: number
}

const LOAD: Load = options.quick
  ? { jobs: 40, concurrency: 20, callMs: 200 }
  : { jobs: 2_000, concurrency: 200, callMs: 1_000 }
const ALL_AT_ONCE: Load = options.quick
  ? { jobs: 100, concurrency: 100, callMs: 200 }
  : { jobs: 2_000, concurrency: 2_000, callMs: 5_000 }

const idealSeconds = ({ jobs, concurrency, callMs }: Load): number => (jobs * callMs) / concurrency / 1_000

/** Two pools of two. */
const MOST_CONNECTIONS = 4
const TASK = 'analyse'

type Call = SlowCallsOrder['call']

const STAGED = 'triphase, staged, timer'
const STAGED_AT_ONCE = 'triphase, staged, timer, all at once'
const PLAIN = 'triphase, plain, timer'
const PLAIN_POLLING = 'triphase, plain, timer, polling'
const PLAIN_AT_ONCE = 'triphase, plain, timer, all at once'
const RAMP = 'floor, staged, without the call'

function staged(name: string, call: Call, load: Load): Variant {
  return {
    name,
    async measure(stage) {
      await stage.query(ANALYSIS_TABLE)
      const order = await installed(stage, triphase('', { task: TASK }))
      await fill(order, load.jobs)
      const measured = await measureCalls(stage, 'staged', { ...load, call })
      const { connections = Number.NaN } = measured.figures
      const faults = [
        ...measured.faults,
        ...(connections > MOST_CONNECTIONS ? [`${connections} connections at a time`] : []),
        ...(await countFaults(order, { live: 0, done: load.jobs })),
        ...(await stagedFaults(stage, 'triphase', load)),
      ]
      return { ...measured, faults }
    },
  }
}

function floor(name: string, call: Call): Variant {
  return {
    name,
    async measure(stage) {
      await stage.query([FLOOR_TABLES, STAGED_FLOOR_TABLES, ANALYSIS_TABLE].join(';'))
      await stage.query(FILL_FLOOR, [LOAD.jobs])
      await stage.query(CLAIM_ALL)
      const measured = await measureCalls(stage, 'floor', { ...LOAD, call })
      return { ...measured, faults: [...measured.faults, ...(await stagedFaults(stage, 'public', LOAD))] }
    },
  }
}

/** A task that is nothing but the call. */
function plain(contestant: Contestant, load: Load = LOAD): Variant {
  return {
    ...needsOf(contestant),
    name: contestant.name,
    async measure(stage) {
      const order = await installed(stage, contestant)
      await fill(order, load.jobs)
      const measured = await measureCalls(stage, 'plain', { ...order, ...load, call: 'timer' })
      const faults = await countFaults(order, { live: 0, done: load.jobs })
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

const plainTriphase = (name: string, { concurrency }: Load, polling = false): Contestant => ({
  ...triphase('', {
    task: TASK,
    engine: { engine: { size: 2 }, queues: { default: concurrency } },
    ...(polling ? { polling } : {}),
  }),
  name,
})

/** Runs a program, beside the API where it calls one, and sees that the API was called once for each job. */
async function measureCalls(stage: Stage, program: string, load: Load & { call: Call }): Promise<Measured> {
  const order = { ...load, api: '' }
  const measure = () => measureJobs(stage, new URL(`./slow-calls/${program}.ts`, import.meta.url), order)
  const measured = load.call === 'http' ? await besideApi(stage, order, measure) : await measure()
  const { figures } = measured
  return { ...measured, figures: { ...figures, overIdeal: (figures.seconds ?? 0) / idealSeconds(load) } }
}

async function besideApi(
  stage: Stage,
  order: Load & { api: string },
  measure: () => Promise<Measured>,
): Promise<Measured> {
  const api = stage.start(new URL('./slow-calls/api.ts', import.meta.url), { answersAfterMs: order.callMs })
  order.api = `http://127.0.0.1:${await api.heard<number>('listening')}`
  const measured = await measure()
  api.tell('end')
  const calls = await api.heard<number[]>('calls')
  await api.ended
  return {
    ...measured,
    faults: [
      ...measured.faults,
      ...differs('things that the API was asked for', calls.length, order.jobs),
      ...differs('calls that the API had twice', calls.filter((count) => count > 1).length, 0),
    ],
  }
}

async function stagedFaults(stage: Stage, schema: 'triphase' | 'public', { jobs }: Load): Promise<string[]> {
  const [found] = await stage.query<Record<'done' | 'attempts' | 'answers' | 'live', number>>(
    `SELECT (SELECT count(*) FROM analysis WHERE status = 'completed' AND answer IS NOT NULL)::int AS done,
            (SELECT count(DISTINCT job_id) FROM ${schema}.job_attempt WHERE outcome = 'completed')::int AS attempts,
            (SELECT count(*) FROM ${schema}.answer)::int AS answers,
            (SELECT count(*) FROM ${schema}.job)::int AS live`,
  )
  return [
    ...differs('completed analyses', found?.done, jobs),
    ...differs('attempts kept', found?.attempts, jobs),
    ...differs('answers left', found?.answers, 0),
    ...differs('live jobs left', found?.live, 0),
  ]
}

/**
 * Beside what the same transactions take alone: all of them, which is the goal, and only those of one filling of the
 * slots, since later ones can run while other jobs' calls do.
 */
function derive(round: Round): void {
  const alone = round.get(RAMP)?.figures.seconds ?? Number.NaN
  for (const [name, { figures }] of round) {
    const { jobs, concurrency, ...load } = name === STAGED_AT_ONCE ? ALL_AT_ONCE : LOAD
    const ramp = (alone * concurrency) / LOAD.jobs
    if (name.includes('staged')) {
      const ideal = idealSeconds({ jobs, concurrency, ...load })
      figures.overAlone = (figures.seconds ?? 0) / (ideal + (alone * jobs) / LOAD.jobs)
      figures.overRamp = (figures.seconds ?? 0) / (ideal + ramp)
    }
  }
}

const ratio = (of: string, to: string) => ({ of, to, figure: 'seconds' })

await runBenchmark(
  {
    name: 'slow-calls',
    about: [LOAD, ALL_AT_ONCE]
      .map((load) => {
        const [jobs, atOnce] = [load.jobs, load.concurrency].map((count) => count.toLocaleString('en'))
        return `${jobs} jobs whose call takes ${load.callMs} ms, ${atOnce} at once: ${idealSeconds(load)} s at best`
      })
      .join('; '),
    variants: [
      staged('triphase, staged, http', 'http', LOAD),
      floor('floor, staged, http', 'http'),
      staged(STAGED, 'timer', LOAD),
      floor('floor, staged, timer', 'timer'),
      floor(RAMP, 'none'),
      {
        name: 'http calls alone',
        measure: (stage) => measureCalls(stage, 'calls-alone', { ...LOAD, call: 'http' }),
      },
      plain(plainTriphase(PLAIN, LOAD)),
      plain(plainTriphase(PLAIN_POLLING, LOAD, true)),
      // Two lanes with half of the jobs each, which end together here as they take the same time.
      plain(floorOf('plain, timer', { batch: LOAD.concurrency / 2, lanes: 2 })),
      // As their documentation has it for much at a time: acks of 25 ms together, one job more claimed than there are
      // slots; a worker for each job at a time.
      plain(
        graphileWorker('plain, timer', {
          task: TASK,
          worker: {
            concurrentJobs: LOAD.concurrency,
            localQueue: { size: LOAD.concurrency + 1 },
            completeJobBatchDelay: 25,
            failJobBatchDelay: 25,
          },
        }),
      ),
      plain(
        pgBoss('plain, timer', {
          task: TASK,
          work: { localConcurrency: LOAD.concurrency, pollingIntervalSeconds: 0.5 },
        }),
      ),
      plain(bullmq('plain, timer', { task: TASK, worker: { concurrency: LOAD.concurrency } })),
      staged(STAGED_AT_ONCE, 'timer', ALL_AT_ONCE),
      plain(plainTriphase(PLAIN_AT_ONCE, ALL_AT_ONCE), ALL_AT_ONCE),
    ],
    columns: [
      { figure: 'seconds', title: 's', places: 3, spread: true },
      { figure: 'overIdeal', title: 'of\nideal', places: 3 },
      { figure: 'overAlone', title: 'of ideal\n+ all alone', places: 3 },
      { figure: 'overRamp', title: 'of ideal\n+ one filling', places: 3 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'busyConnectionSeconds', title: 'busy\nconnection s', places: 2 },
      { figure: 'callsWhileHeld', title: 'calls\nwhile held', places: 0 },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/job', places: 0 },
      { figure: 'nodeCpuUs', title: 'Node\nCPU µs/job', places: 0 },
      { figure: 'commits', title: 'commits\nper job', places: 2 },
      { figure: 'walBytes', title: 'WAL\nbytes/job', places: 0 },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: [
      { of: PLAIN, figure: 'overIdeal', atMost: 1.01 },
      { of: PLAIN, figure: 'busyConnectionSeconds', atMost: 0.3 },
      { of: PLAIN_POLLING, figure: 'connections', atMost: 2 },
      { of: STAGED, figure: 'overAlone', atMost: 1.03 },
      { of: STAGED, figure: 'overRamp' },
      { of: STAGED, figure: 'busyConnectionSeconds', atMost: 3 },
      { of: STAGED, figure: 'connections', atMost: 4 },
      { of: STAGED_AT_ONCE, figure: 'overAlone', atMost: 1.03 },
      { of: STAGED_AT_ONCE, figure: 'connections', atMost: 4 },
      ratio('triphase, staged, http', 'floor, staged, http'),
      ratio(STAGED, 'floor, staged, timer'),
    ],
    derive,
  },
  options,
)
