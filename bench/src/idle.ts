import { setTimeout as delay } from 'node:timers/promises'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import { preciseCpuSeconds } from './support/process-times.ts'
import type { Stage } from './support/stage.ts'
import { COUNTING_STATEMENTS, countStatements, statementFigures } from './support/statements.ts'
import type { Done } from './support/subject.ts'
import { type Contestant, countFaults, differs, fill, installed, needsOf } from './systems/contestant.ts'
import { bullmq, graphileWorker, pgBoss, triphase } from './systems/peers.ts'

const options = optionsOf()
const SECONDS = options.quick ? 2 : 60
/** Until pauses between two polls have grown to their longest. */
const SETTLE_SECONDS = options.quick ? 1 : 20

const QUEUES = Object.fromEntries(
  ['default', ...Array.from({ length: 9 }, (_, index) => `queue-${index}`)].map((name) => [name, 10]),
)
const MORE_QUEUES = 9

function idle(contestant: Contestant, pooled = false): Variant {
  return {
    ...(pooled ? { needs: 'pgbouncer' } : needsOf(contestant)),
    name: contestant.name,
    async measure(stage) {
      const own = await installed(stage, contestant)
      const order = pooled ? { ...own, url: (await stage.startPgBouncer()).url } : own
      const child = stage.start(new URL('./idle/process.ts', import.meta.url), order)
      await child.heard('ready')
      await delay(SETTLE_SECONDS * 1_000)
      await countStatements(stage)
      const before = await backendSeconds(stage)
      child.tell('go')
      await delay(SECONDS * 1_000)
      child.tell('end')
      const { seconds, cpuSeconds, figures } = await child.heard<Done>('done')
      const after = await backendSeconds(stage)
      const { calls } = await statementFigures(stage)
      child.tell('noted')
      // It was idle, and yet at work.
      await fill(own, 1)
      child.tell('jobs')
      const runs = await child.heard<number>('runs')
      const faults = await countFaults(own, { live: 0, done: 1 })
      child.tell('close')
      await child.ended
      return {
        figures: {
          processPercent: (cpuSeconds * 100) / seconds,
          ...(stage.redis
            ? {}
            : {
                backendPercent: ((after.seconds - before.seconds) * 100) / seconds,
                statementsPerMinute: (calls * 60) / seconds,
                connections: after.connections,
              }),
        },
        faults: [
          ...faults,
          ...differs('jobs that ran while there were none', figures.runs, 0),
          ...differs('jobs that ran afterwards', runs, 1),
        ],
      }
    },
  }
}

/** CPU of the server processes that serve the stage's database. */
async function backendSeconds({
  server,
  database,
}: Stage): Promise<{ seconds: number; connections: number }> {
  const { rows } = await server.control.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'`,
    [database],
  )
  const seconds = rows.reduce((sum, { pid }) => sum + preciseCpuSeconds(pid), 0)
  return { seconds, connections: rows.length }
}

const TRIPHASE = triphase('', { engine: { queues: QUEUES } })
const POLLING = triphase('PgBouncer, polling', { engine: { queues: QUEUES }, polling: true })

await runBenchmark(
  {
    name: 'idle',
    about: `a process with ten queues and nothing to do for ${SECONDS} s (graphile-worker, which has no queues: with one task)`,
    variants: [
      idle(TRIPHASE),
      idle(POLLING, true),
      idle(graphileWorker('', { worker: { concurrentJobs: 10 } })),
      idle(pgBoss('default', { moreQueues: MORE_QUEUES })),
      idle(pgBoss('notify', { moreQueues: MORE_QUEUES, notify: true })),
      idle(bullmq('', { moreQueues: MORE_QUEUES })),
    ],
    columns: [
      { figure: 'statementsPerMinute', title: 'statements\na minute', places: 1, spread: true },
      { figure: 'processPercent', title: 'process,\n% of a core', places: 3, spread: true },
      { figure: 'backendPercent', title: 'its connections,\n% of a core', places: 3, spread: true },
      { figure: 'connections', title: 'connections', places: 0 },
    ],
    comparisons: [
      { of: TRIPHASE.name, figure: 'statementsPerMinute', atMost: 30 },
      { of: TRIPHASE.name, figure: 'processPercent', atMost: 0.1 },
      { of: POLLING.name, figure: 'statementsPerMinute', atMost: 30 },
    ],
    settings: COUNTING_STATEMENTS,
    together: true,
  },
  options,
)
