import pg from 'pg'
import { createEngine, defineSweep } from 'triphase'
import { BareLoop, type LoopOptions } from './bare-loop.ts'
import type { Call } from './records.ts'

/** Something that goes over all records. */
export interface Subject {
  /** Answers with the seconds that it took. */
  work(): Promise<number>
  close(): Promise<void>
}

export function bareLoop(url: string, options: LoopOptions, call: Call): Subject {
  const pool = new pg.Pool({ connectionString: url, application_name: 'bare loop' })
  return {
    async work() {
      const began = Date.now()
      await new BareLoop(pool, options, call).run()
      return (Date.now() - began) / 1_000
    },
    close: () => pool.end(),
  }
}

/** An engine with its defaults, from its start to the moment at which its run is complete. */
export async function triphase(url: string, concurrency: number, call: Call): Promise<Subject> {
  const sweep = defineSweep<{ id: string }>({
    name: 'answer',
    table: { name: 'record', key: 'id' },
    concurrency,
    each: call,
  })
  const engine = createEngine({ url, tasks: [sweep], queues: { default: 4 } })
  await engine.migrate()
  return {
    async work() {
      const began = Date.now()
      await engine.start()
      const control = engine.sweep(sweep)
      await control.run()
      const { state, reason, finishedAt } = await control.settled()
      if (state !== 'completed') throw new Error(`The run is ${state}: ${reason}`)
      return ((finishedAt?.getTime() ?? Number.NaN) - began) / 1_000
    },
    close: () => engine.stop(),
  }
}
