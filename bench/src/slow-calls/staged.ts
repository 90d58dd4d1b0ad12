import type pg from 'pg'
import { createEngine, defineStagedTask, type Task, unchecked } from 'triphase'
import { RunCount, runSubject, timed } from '../support/subject.ts'
import { type Answer, COMPLETE, PREPARE } from './analysis.ts'
import { type SlowCallsOrder, slowCall } from './call.ts'

const POOL_SIZE = 2

/** Jobs that hold a connection: from within a transaction until the engine says that it gave the connection back. */
class Holders {
  readonly #jobs = new Set<string>()
  callsWhileHeld = 0

  holds(jobId: string): void {
    this.#jobs.add(jobId)
  }

  released(jobId: string | null): void {
    if (jobId !== null) this.#jobs.delete(jobId)
  }

  calls(jobId: string): void {
    if (this.#jobs.has(jobId)) this.callsWhileHeld++
  }
}

/** Staged jobs, each with a transaction before its call and one after it. */
await runSubject<SlowCallsOrder>(async (order, parent) => {
  const { jobs, url, concurrency } = order
  const runs = new RunCount(jobs)
  const holders = new Holders()
  const call = counted(slowCall(order), runs)
  const engine = createEngine({
    url,
    engine: { size: POOL_SIZE },
    application: { size: POOL_SIZE },
    tasks: [stagedTask(call, holders)],
    queues: { default: concurrency },
  })
  let completed = 0
  let longestHoldMs = 0
  const finished = Promise.withResolvers<void>()
  engine.telemetry.on('pool:held', ({ pool, jobId, holdMs }) => {
    if (pool === 'application') holders.released(jobId)
    longestHoldMs = Math.max(longestHoldMs, holdMs)
  })
  engine.telemetry.on('job:completed', () => {
    completed++
    if (completed === jobs) finished.resolve()
  })
  await timed(parent, async () => {
    await engine.start()
    await finished.promise
    const { callsWhileHeld } = holders
    return {
      figures: { callsWhileHeld, longestHoldMs },
      faults: [...runs.faults(), ...(callsWhileHeld > 0 ? [`${callsWhileHeld} calls while held`] : [])],
    }
  })
  await engine.stop()
})

type Call = (n: number) => Promise<Answer>

function counted(call: Call, runs: RunCount): Call {
  return (n) => {
    runs.count(n)
    return call(n)
  }
}

function stagedTask(call: Call, holders: Holders): Task<{ n: number }, pg.PoolClient> {
  return defineStagedTask({
    name: 'analyse',
    input: unchecked<{ n: number }>(),
    prepare: async ({ tx, input, job }) => {
      holders.holds(job.id)
      const { rows } = await tx.query<{ n: number }>(PREPARE, [input.n])
      return rows[0]?.n ?? input.n
    },
    call: ({ prepared, job }) => {
      holders.calls(job.id)
      return call(prepared)
    },
    commit: async ({ tx, input, answer, job }) => {
      holders.holds(job.id)
      await tx.query(COMPLETE, [input.n, JSON.stringify(answer)])
    },
  })
}
