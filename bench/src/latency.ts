import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import { quantile } from './support/spread.ts'
import { type Contestant, countFaults, installed, needsOf } from './systems/contestant.ts'
import { bullmq, floor, graphileWorker, pgBoss, triphase } from './systems/peers.ts'

const options = optionsOf()

interface Load {
  jobs: number
  gapMs: readonly [number, number]
  /** So many at the beginning do not count: a process has just started. */
  warmUp: number
}

const OFTEN: Load = { jobs: options.quick ? 15 : 600, gapMs: [10, 50], warmUp: options.quick ? 1 : 20 }
/** For polling every two seconds, which takes one job at a time. */
const RARELY: Load = { jobs: 6, gapMs: [2_000, 3_000], warmUp: 1 }

const TRIPHASE = triphase('', { engine: { queues: { default: 10 } } })
const POLLING = triphase('PgBouncer, polling', { engine: { queues: { default: 10 } }, polling: true })
const GRAPHILE_WORKER = graphileWorker('', { worker: { concurrentJobs: 10 } })
const PG_BOSS = pgBoss('notify', { notify: true, work: { localConcurrency: 10 } })

function latency(contestant: Contestant, { jobs, gapMs, warmUp }: Load = OFTEN, pooled = false): Variant {
  return {
    ...(pooled ? { needs: 'pgbouncer' } : needsOf(contestant)),
    name: contestant.name,
    async measure(stage) {
      const own = await installed(stage, contestant)
      const order = { ...own, ...(pooled ? { url: (await stage.startPgBouncer()).url } : {}), jobs }
      const worker = stage.start(new URL('./latency/worker.ts', import.meta.url), order)
      await worker.heard('working')
      const enqueuer = stage.start(new URL('./latency/enqueuer.ts', import.meta.url), { ...order, gapMs })
      const begun = await enqueuer.heard<number[]>('times')
      const began = await worker.heard<number[]>('times')
      const faults = await worker.heard<string[]>('faults')
      enqueuer.tell('end')
      await Promise.all([worker.ended, enqueuer.ended])
      const waits = begun.map((from, n) => (began[n] ?? Number.NaN) - from).slice(warmUp)
      return {
        figures: { p50: quantile(waits, 0.5), p99: quantile(waits, 0.99), longest: Math.max(...waits) },
        faults: [...faults, ...(await countFaults(own, { live: 0, done: jobs }))],
      }
    },
  }
}

await runBenchmark(
  {
    name: 'latency',
    about:
      'ms from the call that enqueues in one process to the start of the handler in another, one idle queue',
    variants: [
      latency(TRIPHASE),
      latency(floor('asks every 5 ms', { batch: 10, lanes: 1, pollMs: 5 })),
      latency(GRAPHILE_WORKER),
      latency(PG_BOSS),
      latency(bullmq('', { worker: { concurrency: 10 } })),
      latency(POLLING, OFTEN, true),
      ...(options.quick ? [] : [latency(pgBoss('default', {}), RARELY)]),
    ],
    columns: [
      { figure: 'p50', title: 'p50, ms', places: 2, spread: true },
      { figure: 'p99', title: 'p99, ms', places: 2, spread: true },
      { figure: 'longest', title: 'longest, ms', places: 1 },
    ],
    comparisons: [
      { of: TRIPHASE.name, to: GRAPHILE_WORKER.name, figure: 'p50', atMost: 1 },
      { of: TRIPHASE.name, to: GRAPHILE_WORKER.name, figure: 'p99', atMost: 1 },
      { of: POLLING.name, figure: 'p50', atMost: 60 },
    ],
  },
  options,
)
