import { setTimeout as delay } from 'node:timers/promises'
import { optionsOf, runBenchmark, type Turn, type Variant } from './support/benchmark.ts'
import type { Child } from './support/child.ts'
import type { Stage } from './support/stage.ts'
import { countFaults, differs, fill, installed } from './systems/contestant.ts'
import { triphase } from './systems/peers.ts'

const JOBS = 50
/** The engine's default. */
const HEARTBEAT_MS = 4_000

const options = optionsOf()

interface Case {
  heir: 'running already' | 'started afterwards'
  machine: 'same' | 'another'
}

/** Kills a process with kill -9 and waits until another one runs all of its jobs. */
function recovery({ heir, machine }: Case): Variant {
  return {
    name: `${heir}, ${machine === 'same' ? 'same machine' : 'as if on another machine'}`,
    async measure(stage, turn) {
      const order = await installed(stage, triphase('', { task: 'wait' }))
      await fill(order, JOBS)
      const victim = startWorker(stage)
      await victim.heard('all')
      const running = heir === 'running already' ? await settled(startWorker(stage), turn) : undefined
      if (machine === 'another') await stage.query('UPDATE triphase.process SET machine = NULL')
      const killed = performance.now()
      await victim.kill()
      const child = running ?? startWorker(stage)
      await child.heard('first')
      const first = performance.now()
      await child.heard('all')
      const all = performance.now()
      return {
        figures: { secondsToFirst: (first - killed) / 1_000, secondsToAll: (all - killed) / 1_000 },
        faults: [
          ...(await faultsAfter(stage, child)),
          ...(await countFaults(order, { live: 0, done: JOBS })),
        ],
      }
    },
  }
}

function startWorker(stage: Stage): Child {
  const program = new URL('./recover/worker.ts', import.meta.url)
  return stage.start(program, { url: stage.url, jobs: JOBS })
}

/** How long the death goes unnoticed depends on when it falls between two heartbeats: the rounds share them out evenly. */
async function settled(heir: Child, { round, rounds }: Turn): Promise<Child> {
  await heir.heard('started')
  await delay(HEARTBEAT_MS * ((options.quick ? 0 : 1) + (round + 0.5) / rounds))
  return heir
}

async function faultsAfter(stage: Stage, heir: Child): Promise<string[]> {
  heir.tell('finish')
  const faults = await heir.heard<string[]>('faults')
  await heir.ended
  const [found] = await stage.query<{ crashed: number; claims: number }>(
    `SELECT (SELECT count(DISTINCT job_id) FROM triphase.job_attempt WHERE outcome = 'crashed')::int AS crashed,
            count(*) FILTER (WHERE crash_count = 1 AND attempt = 1)::int AS claims
     FROM triphase.job_history`,
  )
  return [
    ...faults,
    ...differs('crashed attempts kept', found?.crashed, JOBS),
    ...differs('jobs with one crash and one attempt', found?.claims, JOBS),
  ]
}

await runBenchmark(
  {
    name: 'recover',
    about: `kill -9 of a process with ${JOBS} running jobs, until all run again in another; default settings`,
    variants: [
      recovery({ heir: 'running already', machine: 'same' }),
      recovery({ heir: 'started afterwards', machine: 'same' }),
      // Another machine's death shows only in its silence, for deadAfter (12 s).
      ...(options.quick ? [] : [recovery({ heir: 'running already', machine: 'another' })]),
      ...(options.quick ? [] : [recovery({ heir: 'started afterwards', machine: 'another' })]),
    ],
    columns: [
      { figure: 'secondsToFirst', title: 's until\nthe first runs again', places: 2, spread: true },
      { figure: 'secondsToAll', title: 's until\nall run again', places: 2, spread: true },
    ],
    comparisons: [],
  },
  options,
)
