import { CLAIM_ALL, FILL_FLOOR, FLOOR_TABLES, STAGED_FLOOR_TABLES } from './floor/tables.ts'
import { ANALYSIS_TABLE } from './slow-calls/analysis.ts'
import type { SlowCallsOrder } from './slow-calls/call.ts'
import { type Measured, optionsOf, type Round, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { measureJobs } from './support/throughput.ts'
import { differs, enqueueNumbered, historyFaults } from './support/triphase-jobs.ts'

const options = optionsOf()
const jobs = options.quick ? 200 : 2_000
const callMs = options.quick ? 200 : 1_000
const concurrency = options.quick ? 20 : 200
const idealSeconds = (jobs * callMs) / concurrency / 1_000
/** Two pools of two, and the connection that listens. */
const MOST_CONNECTIONS = 5

type Call = SlowCallsOrder['call']

function triphase(kind: 'staged' | 'plain', call: Call): Variant {
  return {
    name: `triphase, ${kind}, ${call}`,
    async measure(stage) {
      await stage.query(ANALYSIS_TABLE)
      await enqueueNumbered(stage, jobs, 'analyse')
      const measured = await measureCalls(stage, 'triphase', call, { staged: kind === 'staged' })
      const { connections = Number.NaN } = measured.figures
      const faults = [
        ...measured.faults,
        ...(connections > MOST_CONNECTIONS ? [`${connections} connections at a time`] : []),
        ...(await historyFaults(stage, jobs)),
        ...(kind === 'staged' ? await stagedFaults(stage, 'triphase') : []),
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
      await stage.query(FILL_FLOOR, [jobs])
      await stage.query(CLAIM_ALL)
      const measured = await measureCalls(stage, 'floor', call)
      return { ...measured, faults: [...measured.faults, ...(await stagedFaults(stage, 'public'))] }
    },
  }
}

const RAMP = 'floor, staged, without the call'

/** Runs a program beside the API that it calls, and sees that the API was called once for each job. */
async function measureCalls(stage: Stage, program: string, call: Call, details = {}): Promise<Measured> {
  const api = stage.start(new URL('./slow-calls/api.ts', import.meta.url), { answersAfterMs: callMs })
  const port = await api.heard<number>('listening')
  const order = { jobs, concurrency, call, callMs, api: `http://127.0.0.1:${port}`, ...details }
  const measured = await measureJobs(stage, new URL(`./slow-calls/${program}.ts`, import.meta.url), order)
  api.tell('end')
  const calls = await api.heard<number[]>('calls')
  await api.ended
  const expected = call === 'http' ? jobs : 0
  return {
    ...measured,
    faults: [
      ...measured.faults,
      ...differs('things that the API was asked for', calls.length, expected),
      ...differs('calls that the API had twice', calls.filter((count) => count > 1).length, 0),
    ],
  }
}

async function stagedFaults(stage: Stage, schema: 'triphase' | 'public'): Promise<string[]> {
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
 * What the transactions cost alone delays the end by as much as one filling of the slots takes, since later ones run
 * while other jobs' calls do; `overAll` says what it would be if nothing ran beside anything.
 */
function derive(round: Round): void {
  const alone = round.get(RAMP)?.figures.seconds ?? Number.NaN
  for (const { figures } of round.values()) {
    const { seconds = Number.NaN } = figures
    figures.overIdeal = seconds / idealSeconds
    figures.overRamp = seconds / (idealSeconds + (alone * concurrency) / jobs)
    figures.overAll = seconds / (idealSeconds + alone)
  }
}

const ratio = (of: string, to: string) => ({ of, to, figure: 'seconds' })

await runBenchmark(
  {
    name: 'slow-calls',
    about: `${jobs.toLocaleString('en')} jobs whose call takes ${callMs} ms, ${concurrency} at once: ${idealSeconds} s at best`,
    variants: [
      triphase('staged', 'http'),
      floor('floor, staged, http', 'http'),
      triphase('staged', 'timer'),
      floor('floor, staged, timer', 'timer'),
      floor(RAMP, 'none'),
      triphase('plain', 'http'),
      triphase('plain', 'timer'),
      {
        name: 'http calls alone',
        measure: (stage) => measureCalls(stage, 'calls-alone', 'http'),
      },
    ],
    columns: [
      { figure: 'seconds', title: 's', places: 3, spread: true },
      { figure: 'overIdeal', title: 'of\nideal', places: 3 },
      { figure: 'overRamp', title: 'of ideal\n+ ramp', places: 3 },
      { figure: 'overAll', title: 'of ideal\n+ all alone', places: 3 },
      { figure: 'databaseCpuUs', title: 'database\nCPU µs/job', places: 0 },
      { figure: 'nodeCpuUs', title: 'Node\nCPU µs/job', places: 0 },
      { figure: 'commits', title: 'commits\nper job', places: 2 },
      { figure: 'walBytes', title: 'WAL\nbytes/job', places: 0 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
      { figure: 'busyConnectionSeconds', title: 'busy\nconnection s', places: 2 },
      { figure: 'callsWhileHeld', title: 'calls\nwhile held', places: 0 },
    ],
    ratios: [
      ratio('triphase, staged, http', 'floor, staged, http'),
      ratio('triphase, staged, timer', 'floor, staged, timer'),
      ratio('triphase, plain, http', 'http calls alone'),
    ],
    derive,
  },
  options,
)
