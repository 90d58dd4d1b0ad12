import { setTimeout as delay } from 'node:timers/promises'
import { createEngine } from 'triphase'
import type { ApplicationOrder } from './isolation/application.ts'
import type { IsolationFound, IsolationOrder } from './isolation/process.ts'
import { type Column, type Comparison, optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Child } from './support/child.ts'
import type { Stage } from './support/stage.ts'
import type { Figures } from './support/subject.ts'
import { differs } from './systems/contestant.ts'

const options = optionsOf()
const UNDISTURBED_SECONDS = options.quick ? 0.2 : 8
const EXHAUSTED_SECONDS = options.quick ? 0.4 : 30
const [BURSTS, JOBS] = options.quick ? [1, 1_000] : [5, 10_000]
const NAME = 'isolation'
/** Server connections of the application behind PgBouncer: as many as its pool has here. */
const POOLER_SIZE = 10
const ROLES = ['engine_side', 'application_side'] as const

type Way = 'directly' | 'PgBouncer'
type Disturbance = 'none' | 'application' | 'acks'

const IN_WORDS: Record<Disturbance, string> = {
  none: 'undisturbed',
  application: 'application exhausted',
  acks: 'acks',
}
const nameOf = (way: string, disturbance: Disturbance) => `${way}, ${IN_WORDS[disturbance]}`
const needsOf = (way: Way): Pick<Variant, 'needs'> => (way === 'PgBouncer' ? { needs: 'pgbouncer' } : {})

function isolation(way: Way, disturbance: Disturbance): Variant {
  return {
    name: nameOf(way, disturbance),
    ...needsOf(way),
    async measure(stage) {
      const order = { ...(await urlsOf(stage, way === 'PgBouncer')), disturbance }
      const child = stage.start(new URL('./isolation/process.ts', import.meta.url), {
        ...order,
        name: NAME,
        seconds: disturbance === 'application' ? EXHAUSTED_SECONDS : UNDISTURBED_SECONDS,
        bursts: BURSTS,
        jobs: JOBS,
      } satisfies IsolationOrder)
      await child.heard('ready')
      const beats = new BeatWatch(stage)
      child.tell('go')
      const { figures, faults } = await child.heard<IsolationFound>('found')
      const longestSilence = await beats.end()
      const names = await applicationNames(stage)
      child.tell('noted')
      await child.ended
      return {
        figures: { ...figures, ...(disturbance === 'acks' ? {} : { longestSilence }) },
        faults: [...faults, ...names, ...(await taken(stage))],
      }
    },
  }
}

type Neighbour = 'none' | 'acks' | 'computing'

const NEIGHBOUR: Record<Neighbour, string> = {
  none: 'alone',
  acks: 'beside acks',
  computing: 'beside two processes that compute',
}
const nameBeside = (way: string, neighbour: Neighbour) => `${way}, another process ${NEIGHBOUR[neighbour]}`

/** The application in a process of its own: what is left has to do with the database, or with the processor. */
function elsewhere(way: Way, neighbour: Neighbour): Variant {
  return {
    name: nameBeside(way, neighbour),
    ...needsOf(way),
    async measure(stage) {
      const urls = await urlsOf(stage, way === 'PgBouncer')
      const application = stage.start(new URL('./isolation/application.ts', import.meta.url), {
        url: urls.application,
      } satisfies ApplicationOrder)
      await application.heard('ready')
      let faults: string[] = []
      if (neighbour === 'none') await measured(application, UNDISTURBED_SECONDS / 4)
      if (neighbour === 'computing') await besideComputing(stage, application)
      if (neighbour === 'acks') faults = await besideAcks(stage, application, urls)
      application.tell('enough')
      const figures = await application.heard<Figures>('found')
      await application.ended
      return { figures, faults: [...faults, ...(await taken(stage))] }
    },
  }
}

async function measured(application: Child, seconds: number): Promise<void> {
  application.tell('begin')
  await delay(seconds * 1_000)
  application.tell('pause')
  await application.heard('paused')
}

async function besideComputing(stage: Stage, application: Child): Promise<void> {
  const computing = [1, 2].map(() => stage.start(new URL('./isolation/computing.ts', import.meta.url), null))
  await Promise.all(computing.map((child) => child.heard('ready')))
  await measured(application, UNDISTURBED_SECONDS / 4)
  for (const child of computing) child.tell('enough')
  await Promise.all(computing.map((child) => child.ended))
}

async function besideAcks(stage: Stage, application: Child, urls: Urls): Promise<string[]> {
  const engine = stage.start(new URL('./isolation/process.ts', import.meta.url), {
    ...urls,
    name: NAME,
    disturbance: 'acks-elsewhere',
    seconds: UNDISTURBED_SECONDS,
    bursts: BURSTS,
    jobs: JOBS,
  } satisfies IsolationOrder)
  await engine.heard('ready')
  engine.tell('go')
  for (let burst = 0; burst < BURSTS; burst++) {
    await engine.heard('burst')
    application.tell('begin')
    await engine.heard('burst-over')
    application.tell('pause')
    await application.heard('paused')
    engine.tell('next')
  }
  const { faults } = await engine.heard<IsolationFound>('found')
  engine.tell('noted')
  await engine.ended
  return faults
}

type Urls = Pick<IsolationOrder, 'engine' | 'application' | 'directUrl'>

/** The engine and the application log in with roles of their own, so that a pooler keeps a pool for each. */
async function urlsOf(stage: Stage, pooled: boolean): Promise<Urls> {
  const setUp = createEngine({ url: stage.url })
  await setUp.migrate()
  await setUp.stop()
  const users: Record<string, string> = {}
  for (const role of ROLES) {
    users[role] = role
    await stage.query(`DO $$ BEGIN CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${role}';
      EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
  }
  const as = (url: string, role: string) => {
    const to = new URL(url)
    to.username = role
    to.password = role
    return to.href
  }
  const settings = { default_pool_size: POOLER_SIZE }
  const url = pooled ? (await stage.startPgBouncer({ settings, users })).url : stage.url
  return { engine: as(url, ROLES[0]), application: as(url, ROLES[1]), directUrl: as(stage.url, ROLES[0]) }
}

const LOOK_MS = 50

/** How long the process seems silent, to those who watch its row: with a beat every 4 s, up to 4 s and what a beat takes. */
class BeatWatch {
  readonly #stage: Stage
  readonly #watching: Promise<void>
  #longestMs = 0
  #ended = false

  constructor(stage: Stage) {
    this.#stage = stage
    this.#watching = this.#watch()
    this.#watching.catch(() => {})
  }

  /** Seconds. */
  async end(): Promise<number> {
    this.#ended = true
    await this.#watching
    return this.#longestMs / 1_000
  }

  async #watch(): Promise<void> {
    const client = await this.#stage.connect()
    while (!this.#ended) {
      const { rows } = await client.query<{ ms: number }>(
        'SELECT extract(epoch FROM clock_timestamp() - beat_at)::float8 * 1000 AS ms FROM triphase.process',
      )
      this.#longestMs = Math.max(this.#longestMs, rows[0]?.ms ?? 0)
      await delay(LOOK_MS)
    }
  }
}

async function applicationNames(stage: Stage): Promise<string[]> {
  const rows = await stage.query<{ name: string }>(
    'SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database()',
  )
  const seen = rows.map(({ name }) => name)
  return [NAME, `${NAME}-engine`]
    .filter((name) => !seen.includes(name))
    .map((name) => `pg_stat_activity shows no ${name}`)
}

/** Jobs that were taken from the living process, or are missing. */
async function taken(stage: Stage): Promise<string[]> {
  const [found] = await stage.query<{ taken: number; live: number }>(
    `SELECT (SELECT count(*) FROM triphase.job_history WHERE claim_no <> 1 OR crash_count > 0)::int AS taken,
            (SELECT count(*) FROM triphase.job)::int AS live`,
  )
  return [...differs('jobs claimed more than once', found?.taken, 0), ...differs('live jobs', found?.live, 0)]
}

const WAYS = ['directly', 'PgBouncer'] as const

const latency = (name: string, title: string): Column[] => [
  { figure: `${name}P50`, title: `${title}\np50`, places: 2, spread: true },
  { figure: `${name}P99`, title: `${title}\np99`, places: 1, spread: true },
]

await runBenchmark(
  {
    name: 'isolation',
    about: `ms that engine and application take, each by itself, with the application's pool exhausted for ${EXHAUSTED_SECONDS} s, and beside ${BURSTS} bursts of ${JOBS.toLocaleString('en')} acks; default settings`,
    variants: WAYS.flatMap((way) => [
      isolation(way, 'none'),
      isolation(way, 'application'),
      isolation(way, 'acks'),
      elsewhere(way, 'none'),
      elsewhere(way, 'acks'),
      elsewhere(way, 'computing'),
    ]),
    columns: [
      ...latency('job', 'enqueue to done,'),
      ...latency('claim', 'claim,'),
      ...latency('ack', 'run and ack,'),
      ...latency('cancel', 'cancel,'),
      { figure: 'longestSilence', title: 'longest\nsilence, s', places: 2 },
      ...latency('checkout', 'checkout,'),
      { figure: 'checkoutMax', title: 'checkout,\nlongest', places: 1 },
      ...latency('transaction', 'transaction,'),
    ],
    comparisons: WAYS.flatMap((way): Comparison[] => [
      ...['jobP50', 'claimP50', 'cancelP50'].map((figure) => ({
        of: nameOf(way, 'application'),
        to: nameOf(way, 'none'),
        figure,
        atMost: 1.25,
      })),
      { of: nameOf(way, 'application'), figure: 'longestSilence', atMost: 5 },
      { of: nameOf(way, 'acks'), to: nameOf(way, 'none'), figure: 'checkoutP50' },
      { of: nameOf(way, 'acks'), figure: 'checkoutMax', atMost: 100 },
      ...['checkoutP50', 'transactionP50', 'transactionP99'].flatMap((figure) =>
        (['none', 'computing'] as const).map((other) => ({
          of: nameBeside(way, 'acks'),
          to: nameBeside(way, other),
          figure,
        })),
      ),
    ]),
  },
  options,
)
