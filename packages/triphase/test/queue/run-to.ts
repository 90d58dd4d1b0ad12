import {
  defineTask,
  type Engine,
  type Job,
  type JobContext,
  type JobState,
  type TaskOptions,
  unchecked,
} from '../../src/index.ts'
import type { Bench } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

export type Run = (context: JobContext<unknown>) => unknown

type RunTo = (state: JobState, run: Run, options?: TaskOptions) => Promise<Job & { engine: Engine<never> }>

/** Enqueues one job that does `run`, and returns it once it is in this state. */
export function useRunTo(bench: Bench): RunTo {
  return async (state, run, options = {}) => {
    const task = defineTask({ name: 'task', input: unchecked<unknown>(), run, ...options })
    // The heartbeat is too rare to help: what is due must be found by itself.
    const engine = bench.engine({
      tasks: [task],
      queues: { default: { concurrency: 1, timeout: '20s' } },
      heartbeat: '30s',
      deadAfter: '90s',
    })
    await engine.start()
    const { id } = await engine.enqueue(task, null)
    return { ...(await jobIn(engine, id, state)), engine: engine as unknown as Engine<never> }
  }
}
