import pg from 'pg'
import { type ConstructorOptions, PgBoss, type WorkOptions } from 'pg-boss'
import { emptied, inTransaction, oneRow } from '../support/database.ts'
import { APPLICATION_INSERT, type Counts, type Settings, type System, Tally } from './system.ts'

export interface PgBossSettings extends Settings {
  /** Options of the instance, of the queue and of the workers; without them, its defaults. */
  boss?: ConstructorOptions
  /** `notify` of the queue. */
  notify?: boolean
  work?: WorkOptions
  /** Queues besides the first, without jobs. */
  moreQueues?: number
}

const COUNT = `
SELECT count(*) FILTER (WHERE state < 'completed')::int AS live,
       count(*) FILTER (WHERE state = 'completed')::int AS done,
       count(DISTINCT (data ->> 'n')::int)::int AS different
FROM pgboss.job`

export const system: System = {
  async install(url, { task = 'no-op', notify = false, moreQueues = 0 }: PgBossSettings) {
    const boss = new PgBoss(url)
    await boss.start()
    await boss.createQueue(task, { notify })
    for (let more = 0; more < moreQueues; more++) await boss.createQueue(`${task}-${more}`, { notify })
    await boss.stop({ graceful: false })
  },

  async open(url, settings: PgBossSettings) {
    const { task = 'no-op', notify = false, moreQueues = 0, work = {} } = settings
    const boss = new PgBoss({ useListenNotify: notify, ...settings.boss, connectionString: url })
    boss.on('error', (error) => console.error(error))
    await boss.start()
    const application = new pg.Pool({ connectionString: url })
    const runs = new Tally()
    return {
      enqueue: (n) => boss.send(task, { n }),
      enqueueMany: (from, length) =>
        boss.insert(
          task,
          Array.from({ length }, (_, index) => ({ data: { n: from + index } })),
        ),
      enqueueWithRow: (n) =>
        inTransaction(application, async (client) => {
          await client.query(APPLICATION_INSERT, [n])
          await boss.send(task, { n }, { db: { executeSql: (text, values) => client.query(text, values) } })
        }),
      async work(handler) {
        for (let more = 0; more < moreQueues; more++) await boss.work(`${task}-${more}`, work, async () => {})
        await boss.work<{ n: number }>(task, work, async (jobs) => {
          await Promise.all(jobs.map(({ data }) => handler(data.n)))
          runs.add(jobs.length)
        })
      },
      async done(jobs) {
        await runs.reaches(jobs)
        await emptied(url, `SELECT FROM pgboss.job WHERE state < 'completed' LIMIT 1`)
      },
      async close() {
        await boss.stop({ graceful: false })
        await application.end()
      },
    }
  },

  count: (url) => oneRow<Counts>(url, COUNT),
}
