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
/** Until pauses between two polls have grown to their longest: Triphase's to a twentieth of the time without work, or 5 s. */
const SETTLE_SECONDS = options.quick ? 1 : 100

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
      child.tell('go')
      const served = await backendsFor(stage, SECONDS)
      child.tell('end')
      const { seconds, cpuSeconds, figures } = await child.heard<Done>('done')
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
                backendPercent: (served.cpuSeconds * 100) / seconds,
                statementsPerMinute: (calls * 60) / seconds,
                connections: served.connections,
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

const LOOK_MS = 500

/** CPU of the server processes that serve the stage's database for so long, and the most of them at a time. */
async function backendsFor(
  { server, database }: Stage,
  seconds: number,
): Promise<{ cpuSeconds: number; connections: number }> {
  const until = performance.now() + seconds * 1_000
  const last = new Map<number, number>()
  let [cpuSeconds, connections] = [0, 0]
  for (; performance.now() < until; await delay(LOOK_MS)) {
    const { rows } = await server.control.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'`,
      [database],
    )
    connections = Math.max(connections, rows.length)
    for (const { pid } of rows) {
      const used = preciseCpuSeconds(pid)
      if (Number.isNaN(used)) continue
      cpuSeconds += used - (last.get(pid) ?? used)
      last.set(pid, used)
    }
  }
  return { cpuSeconds, connections }
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
      { figure: 'connections', title: 'most\nconnections', places: 0 },
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
