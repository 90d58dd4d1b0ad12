import type pg from 'pg'
import { createEngine, defineTask, type EngineOptions, pollingNotifier, unchecked } from 'triphase'
import { oneRow } from '../support/database.ts'
import { APPLICATION_INSERT, type Counts, type Settings, type System, Tally } from './system.ts'

export interface TriphaseSettings extends Settings {
  /** Options of the engine; without them, its defaults. */
  engine?: EngineOptions
  /** `pollingNotifier()` instead of the default. */
  polling?: boolean
  /** False: with `retention` 0, completed jobs leave nothing that could be counted. */
  history?: false
}

const COUNT = `
SELECT (SELECT count(*) FROM triphase.job)::int AS live,
       (SELECT count(*) FROM triphase.job_history WHERE state = 'completed' AND finished_at IS NOT NULL)::int AS done,
       (SELECT count(DISTINCT n) FROM (
          SELECT (input ->> 'n')::int AS n FROM triphase.job
          UNION ALL SELECT (input ->> 'n')::int FROM triphase.job_history) every)::int AS different`

export const system: System = {
  async install(url) {
    const engine = createEngine({ url })
    await engine.migrate()
    await engine.stop()
  },

  async open(url, { task: name = 'no-op', engine: options, polling }: TriphaseSettings) {
    const acks = new Tally()
    let run: (n: number) => unknown = () => {}
    const task = defineTask({
      name,
      input: unchecked<{ n: number }>(),
      run: async ({ input }) => {
        await run(input.n)
      },
    })
    const engine = createEngine<pg.PoolClient>({
      url,
      ...options,
      tasks: [task],
      ...(polling ? { notifier: pollingNotifier() } : {}),
    })
    return {
      enqueue: (n) => engine.enqueue(task, { n }),
      enqueueMany: (from, length) =>
        engine.enqueueMany(
          task,
          Array.from({ length }, (_, index) => ({ input: { n: from + index } })),
        ),
      enqueueWithRow: (n) =>
        engine.transaction(async (tx) => {
          await tx.query(APPLICATION_INSERT, [n])
          await engine.enqueue(task, { n }, { tx })
        }),
      async work(handler, acked) {
        run = handler
        engine.telemetry.on('job:completed', () => {
          acks.add()
          acked?.()
        })
        await engine.start()
      },
      done: (jobs) => acks.reaches(jobs),
      close: () => engine.stop(),
    }
  },

  count: (url) => oneRow<Counts>(url, COUNT),
}
