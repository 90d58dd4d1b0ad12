import type pg from 'pg'
import { createEngine, defineStagedTask, defineTask, type Engine, type Task, unchecked } from 'triphase'
import { runSubject } from '../support/subject.ts'

export type Work = 'plain' | 'staged' | 'transaction'

export interface GuardOrder {
  url: string
  guard: 'off' | 'error'
  work: Work
}

/** What one turn took, for each job or transaction. */
export interface TurnCost {
  cpuUs: number
  wallUs: number
  faults: string[]
}

/** A process that works with or without the guard whenever it is its turn: on so many jobs or transactions; 0 ends it. */
await runSubject<GuardOrder>(async (order, parent) => {
  const turn = order.work === 'transaction' ? transactions(order) : await drains(order)
  parent.tell('ready')
  for (;;) {
    const count = await parent.heard<number>('turn')
    if (count === 0) break
    parent.tell('cost', await turn.run(count))
  }
  await turn.end()
})

interface Turns {
  run(count: number): Promise<TurnCost>
  end(): Promise<void>
}

/** `engine.transaction`, without a database behind it: what is left is the engine and its guard. */
function transactions({ url, guard }: GuardOrder): Turns {
  const transactor = {
    transaction: <Value>(work: (tx: object) => Promise<Value>) => work({}),
    execute: () => Promise.resolve({ rows: [] }),
  }
  const engine = createEngine<object>({ url, transactor, guard: { mode: guard } })
  return {
    run: (count) =>
      costOf(count, async () => {
        for (let done = 0; done < count; done++) await engine.transaction(async () => {})
        return []
      }),
    end: () => engine.stop(),
  }
}

/** Jobs that wait in a paused queue, until the last one's completion is written. */
async function drains({ url, guard, work }: GuardOrder): Promise<Turns> {
  const queue = `guard-${guard}`
  let runs = 0
  const task = noOp(work, queue, () => runs++)
  const engine = createEngine({ url, guard: { mode: guard }, tasks: [task], queues: { [queue]: 50 } })
  await engine.start()
  return {
    async run(count) {
      await paused(engine, queue)
      await engine.enqueueMany(task, Array(count).fill({ input: null }))
      const finished = completions(engine, count)
      runs = 0
      return costOf(count, async () => {
        await engine.resumeQueue(queue)
        await finished
        return runs === count ? [] : [`${runs} runs of ${count} jobs`]
      })
    },
    end: () => engine.stop(),
  }
}

function noOp(work: Work, queue: string, ran: () => void): Task<null, pg.PoolClient> {
  const input = unchecked<null>()
  if (work === 'plain') return defineTask({ name: queue, queue, input, run: ran })
  return defineStagedTask({
    name: queue,
    queue,
    input,
    prepare: async () => null,
    call: async () => {
      ran()
      return 1
    },
    commit: async () => {},
  })
}

async function paused(engine: Engine<pg.PoolClient>, queue: string): Promise<void> {
  const changed = engine.telemetry.next('queue:changed', (event) => event.paused)
  await engine.pauseQueue(queue)
  await changed
}

function completions({ telemetry }: Engine<pg.PoolClient>, count: number): Promise<void> {
  return new Promise((resolve) => {
    let left = count
    const end = telemetry.on('job:completed', () => {
      left--
      if (left > 0) return
      end()
      resolve()
    })
  })
}

async function costOf(count: number, work: () => Promise<string[]>): Promise<TurnCost> {
  // What one turn leaves behind is not to be collected in the next.
  globalThis.gc?.()
  const [began, cpu] = [performance.now(), process.cpuUsage()]
  const faults = await work()
  const { user, system } = process.cpuUsage(cpu)
  return { cpuUs: (user + system) / count, wallUs: ((performance.now() - began) * 1_000) / count, faults }
}
