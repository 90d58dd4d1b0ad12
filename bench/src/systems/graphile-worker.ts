import { Logger, makeWorkerUtils, type Runner, run, runMigrations } from 'graphile-worker'
import pg from 'pg'
import { emptied, inTransaction, oneRow } from '../support/database.ts'
import { APPLICATION_INSERT, type Counts, type Settings, type System, Tally } from './system.ts'

export interface GraphileWorkerSettings extends Settings {
  /** Its own options; without them, its defaults. */
  worker?: GraphileConfig.WorkerOptions
}

/** It writes a line for each job unless it is told otherwise; a terminal is not what is measured. */
const SILENT = new Logger(() => () => {})

// It deletes what is done.
const COUNT = `
SELECT count(*)::int AS live, NULL AS done, NULL AS different FROM graphile_worker._private_jobs`

export const system: System = {
  install: (url) => runMigrations({ connectionString: url, logger: SILENT, taskList: {} }),

  async open(url, { task = 'no-op', worker }: GraphileWorkerSettings) {
    const utils = await makeWorkerUtils({ connectionString: url, logger: SILENT })
    const application = new pg.Pool({ connectionString: url })
    const runs = new Tally()
    let runner: Runner | undefined
    return {
      enqueue: (n) => utils.addJob(task, { n }),
      enqueueMany: (from, length) =>
        utils.addJobs(
          Array.from({ length }, (_, index) => ({ identifier: task, payload: { n: from + index } })),
        ),
      enqueueWithRow: (n) =>
        inTransaction(application, async (client) => {
          await client.query(APPLICATION_INSERT, [n])
          await client.query('SELECT graphile_worker.add_job($1, $2::json)', [task, { n }])
        }),
      async work(handler) {
        await utils.release()
        runner = await run({
          noHandleSignals: true,
          preset: { worker: { ...worker, connectionString: url, logger: SILENT } },
          taskList: {
            [task]: async (payload) => {
              await handler((payload as { n: number }).n)
              runs.add()
            },
          },
        })
      },
      async done(jobs) {
        await runs.reaches(jobs)
        await emptied(url, 'SELECT FROM graphile_worker._private_jobs LIMIT 1')
      },
      async close() {
        await runner?.stop()
        if (!runner) await utils.release()
        await application.end()
      },
    }
  },

  count: (url) => oneRow<Counts>(url, COUNT),
}
