import { createEngine, unchecked } from 'triphase'
import { APPLICATION_TABLES, type Ending, FILL_CAPTURES } from './incident/application.ts'
import { callsOf, jobsOf, type Load, TASK } from './incident/load.ts'
import type { Calls } from './incident/model-server.ts'
import { type Measured, optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import { ConnectionWatch } from './support/connections.ts'
import type { Stage } from './support/stage.ts'
import type { Done, Figures } from './support/subject.ts'
import { differs } from './systems/contestant.ts'

const options = optionsOf()

const MODEL: readonly [number, number] = [5_000, 30_000]
const FAST_API: readonly [number, number] = [500, 2_000]
/** Jobs of one worker. */
const [MODEL_CALLS, FAST_CALLS] = options.quick ? [1, 2] : [3, 16]

const queue = (name: string, workers: number, callMs: typeof MODEL) => ({
  queue: name,
  workers,
  jobs: workers * (callMs === MODEL ? MODEL_CALLS : FAST_CALLS),
  callMs,
})

/** The queues of one process, as they were set. */
const QUEUES: Load = {
  queues: [
    queue('processing', 12, MODEL),
    queue('profile_generation', 1, MODEL),
    queue('summary_generation', 20, MODEL),
    queue('embeddings', 25, FAST_API),
    queue('insights', 2, MODEL),
    queue('scheduled', 1, FAST_API),
    queue('default', 2, FAST_API),
  ],
  acquireTimeoutMs: 15_000,
  tries: 1,
  factor: options.quick ? 50 : 10,
}

/** As many jobs as the backfill had come to when it was stopped. */
const BACKFILL: Load = {
  queues: [{ queue: 'processing', workers: 200, jobs: 585 + 150, callMs: MODEL }],
  acquireTimeoutMs: 15_000,
  tries: 1,
  factor: 10,
}

/** What one worker in five waits for; the articles do not tell their limit. */
const SECONDS: Load = {
  queues: [{ queue: 'default', workers: 50, jobs: options.quick ? 60 : 500, callMs: [1_000, 1_000] }],
  acquireTimeoutMs: 3_000,
  tries: 20,
  factor: options.quick ? 20 : 5,
}

interface Way {
  name: string
  program: 'one-transaction' | 'three-phases'
  pooled: boolean
}

const ONE_TRANSACTION: Way = { name: 'one transaction', program: 'one-transaction', pooled: false }
const THREE_PHASES: Way = { name: 'triphase, three phases', program: 'three-phases', pooled: false }
const THROUGH_PGBOUNCER: Way = {
  name: 'triphase, three phases, PgBouncer',
  program: 'three-phases',
  pooled: true,
}

/** Server connections of the application, and as many of the engine. */
const POOLER_SIZE = 3

const nameOf = ({ name }: Way, { queues }: Load): string =>
  `${name}, ${queues.reduce((sum, { workers }) => sum + workers, 0)} workers`

function variant(way: Way, load: Load): Variant {
  return {
    ...(way.pooled ? { needs: 'pgbouncer' } : {}),
    name: nameOf(way, load),
    measure: (stage) => measure(stage, way, load),
  }
}

async function measure(stage: Stage, { program, pooled }: Way, load: Load): Promise<Measured> {
  const jobs = jobsOf(load)
  await stage.query(APPLICATION_TABLES)
  await stage.query(FILL_CAPTURES, [jobs.length])
  if (program === 'three-phases') await enqueue(stage.url, load)
  const urls = pooled ? await throughPgBouncer(stage) : { url: stage.url, engineUrl: stage.url }
  const server = stage.start(programUrl('model-server'), { callsMs: callsOf(load) })
  const api = `http://127.0.0.1:${await server.heard<number>('listening')}`
  const application = stage.start(programUrl(program), { load, ...urls, directUrl: stage.url, api })
  await application.heard('ready')
  const watch = new ConnectionWatch(stage.server.control, stage.database)
  application.tell('go')
  const { seconds, figures, faults } = await application.heard<Done>('done')
  const peaks = await watch.end()
  const { failed, errors } = await application.heard<Ending>('ending')
  application.tell('noted')
  await application.ended
  server.tell('end')
  const calls = await server.heard<Calls>('calls')
  await server.ended
  const fullSeconds = seconds * load.factor
  return {
    figures: {
      ...figures,
      seconds,
      fullSeconds,
      donePerMinute: ((figures.done ?? 0) * 60) / fullSeconds,
      connections: peaks.all,
      busyConnections: peaks.busy,
      callsAtOnce: calls.mostAtOnce,
    },
    faults: [
      ...faults,
      ...(await faultsOf(stage, jobs.length, failed)),
      ...(program === 'three-phases' ? await faultsOfEngine(stage, jobs.length, failed, calls) : []),
    ],
    notes: { errors, connections: peaks.byApplication },
  }
}

const programUrl = (name: string): URL => new URL(`./incident/${name}.ts`, import.meta.url)

async function enqueue(url: string, load: Load): Promise<void> {
  const task = { name: TASK, input: unchecked<{ n: number }>(), options: { maxAttempts: load.tries } }
  const engine = createEngine({ url })
  await engine.migrate()
  await engine.enqueueMany(
    task,
    jobsOf(load).map(({ n, queue }) => ({ input: { n }, queue })),
  )
  await engine.stop()
}

/** The engine has another name for the database, and so server connections of its own. */
async function throughPgBouncer(stage: Stage): Promise<{ url: string; engineUrl: string }> {
  const alias = 'engine'
  const { url } = await stage.startPgBouncer({ alias, settings: { default_pool_size: POOLER_SIZE } })
  const engineUrl = new URL(url)
  engineUrl.pathname = alias
  return { url, engineUrl: engineUrl.href }
}

/** Each job that is not said to have failed was done, and once; each that is was not. */
async function faultsOf(stage: Stage, jobs: number, failed: readonly number[]): Promise<string[]> {
  const [found] = await stage.query<{ once: number; completions: number }>(
    `SELECT count(*) FILTER (
              WHERE status = 'completed' AND completions = 1 AND observations IS NOT NULL
                AND NOT capture_id = ANY ($1::int[]))::int AS once,
            coalesce(sum(completions), 0)::int AS completions
     FROM analysis`,
    [failed],
  )
  return [
    ...differs('jobs that did not fail and are done once', found?.once, jobs - failed.length),
    ...differs('analyses completed', found?.completions, jobs - failed.length),
  ]
}

async function faultsOfEngine(
  stage: Stage,
  jobs: number,
  failed: readonly number[],
  calls: Calls,
): Promise<string[]> {
  const [found] = await stage.query<Record<'live' | 'done' | 'discarded' | 'answers', number>>(
    `SELECT (SELECT count(*) FROM triphase.job)::int AS live,
            (SELECT count(*) FROM triphase.job_history WHERE state = 'completed')::int AS done,
            (SELECT count(*) FROM triphase.job_history WHERE state = 'discarded')::int AS discarded,
            (SELECT count(*) FROM triphase.answer)::int AS answers`,
  )
  return [
    ...differs('live jobs left', found?.live, 0),
    ...differs('completed jobs in history', found?.done, jobs - failed.length),
    ...differs('discarded jobs in history', found?.discarded, failed.length),
    ...differs('calls that the model server had twice', calls.again, 0),
    ...(failed.length === 0
      ? [
          ...differs('jobs that the model server was asked about', calls.jobs, jobs),
          ...differs('answers left', found?.answers, 0),
        ]
      : []),
  ]
}

/** What the articles say of theirs, at full length. */
function reported(name: string, { done = 0, fullSeconds, ...others }: Figures): Variant {
  const perMinute = fullSeconds === undefined ? {} : { fullSeconds, donePerMinute: (done * 60) / fullSeconds }
  return {
    name: `reported: ${name}`,
    measure: async () => ({ figures: { done, ...perMinute, ...others }, faults: [] }),
  }
}

const WAYS = [ONE_TRANSACTION, THREE_PHASES, THROUGH_PGBOUNCER]
const WAYS_OF_SECONDS = options.quick ? [ONE_TRANSACTION] : [ONE_TRANSACTION, THREE_PHASES]
const MEASURED = [
  ...WAYS.map((way) => [way, QUEUES] as const),
  ...(options.quick ? [] : WAYS.map((way) => [way, BACKFILL] as const)),
  ...WAYS_OF_SECONDS.map((way) => [way, SECONDS] as const),
]

const besideOneTransaction = (load: Load, figure: string, bound: { atLeast?: number; atMost?: number }) => ({
  of: nameOf(THREE_PHASES, load),
  to: nameOf(ONE_TRANSACTION, load),
  figure,
  ...bound,
})

await runBenchmark(
  {
    name: 'incident',
    about:
      `jobs that call a model (5 to 30 s), ${QUEUES.factor} times faster than life, on 10 connections of the ` +
      `application: a process of 63 workers in 7 queues, and a backfill on 200; and 500 jobs of 1 s on 50 workers, ` +
      `${SECONDS.factor} times faster`,
    variants: [
      ...MEASURED.map(([way, load]) => variant(way, load)),
      ...(options.quick
        ? []
        : [
            reported('one transaction, 200 workers', { done: 585, failed: 150 }),
            reported('one transaction, 50 workers (178 to 204 errors)', { done: 500, fullSeconds: 72.8 }),
            reported('three phases, 50 workers', { done: 500, fullSeconds: 10.4, connectionErrors: 0 }),
          ]),
    ],
    columns: [
      { figure: 'donePerMinute', title: 'done a minute\nat full length', places: 0, spread: true },
      { figure: 'fullSeconds', title: 's at full\nlength', places: 1, spread: true },
      { figure: 'done', title: 'jobs\ndone', places: 0 },
      { figure: 'failed', title: 'jobs\nfailed', places: 0 },
      { figure: 'connectionErrors', title: 'errors: no\nconnection', places: 0 },
      { figure: 'otherErrors', title: 'other\nerrors', places: 0 },
      { figure: 'waitP50', title: 'wait p50\nms', places: 1 },
      { figure: 'waitP99', title: 'wait p99\nms', places: 0 },
      { figure: 'waitMax', title: 'longest\nwait ms', places: 0 },
      { figure: 'holdMean', title: 'hold\nms a job', places: 1 },
      { figure: 'holdMax', title: 'longest\nhold ms', places: 0 },
      { figure: 'connections', title: 'most\nconnections', places: 0 },
      { figure: 'callsAtOnce', title: 'most calls\nat a time', places: 0 },
      { figure: 'dashboardP50', title: 'dashboard\np50 ms', places: 1 },
      { figure: 'dashboardP99', title: 'dashboard\np99 ms', places: 0 },
      { figure: 'dashboardFailed', title: 'dashboard\nfailed, %', places: 1 },
    ],
    comparisons: [
      ...MEASURED.filter(([way]) => way !== ONE_TRANSACTION).flatMap(([way, load]) => [
        { of: nameOf(way, load), figure: 'failed', atMost: 0 },
        // What the articles came down to, in all.
        { of: nameOf(way, load), figure: 'holdMean', atMost: 200 },
        // What a wait was before there was trouble.
        { of: nameOf(way, load), figure: 'waitP50', atMost: 10 },
      ]),
      ...(options.quick ? [QUEUES] : [QUEUES, BACKFILL]).map((load) =>
        besideOneTransaction(load, 'dashboardP99', { atMost: 0.1 }),
      ),
      besideOneTransaction(BACKFILL, 'donePerMinute', { atLeast: 10 }),
      besideOneTransaction(SECONDS, 'donePerMinute', { atLeast: 5 }),
    ],
    // Figures of a quick run mean nothing, so its variants may disturb each other.
    together: options.quick,
  },
  options,
)
