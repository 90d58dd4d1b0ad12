import { runSubject } from '../support/subject.ts'
import { Application, askModel, BEGIN_ANALYSIS, COMPLETE_ANALYSIS, LOCK_CAPTURE } from './application.ts'
import { type IncidentOrder, jobsOf } from './load.ts'

interface Waiting {
  n: number
  tries: number
}

/** A job as one writes it first, all of it in one transaction. Its queue is an array, and costs nothing. */
await runSubject<IncidentOrder>(async (order, parent) => {
  const { load, api } = order
  const application = new Application(order)
  const { pool, outcomes } = application
  const failed: number[] = []

  const run = async (n: number): Promise<void> => {
    const client = await pool.connect()
    try {
      await client.query('BEGIN')
      await client.query(LOCK_CAPTURE, [n])
      await client.query(BEGIN_ANALYSIS, [n])
      const observations = await askModel(api, n)
      await client.query(COMPLETE_ANALYSIS, [n, JSON.stringify(observations)])
      await client.query('COMMIT')
    } catch (error) {
      await client.query('ROLLBACK')
      throw error
    } finally {
      client.release()
    }
  }

  /** So many workers with jobs; one that failed comes back after a pause. */
  const startQueue = (workers: number, waiting: Waiting[]): void => {
    let idle = workers

    const work = async (): Promise<void> => {
      idle--
      for (let job = waiting.shift(); job; job = waiting.shift()) await attempt(job)
      idle++
    }
    const attempt = async (job: Waiting): Promise<void> => {
      try {
        await run(job.n)
        outcomes.jobDone()
      } catch (error) {
        outcomes.attemptFailed(error instanceof Error ? error.message : String(error))
        job.tries++
        if (job.tries < load.tries) setTimeout(again, pauseMs(job.tries) / load.factor, job)
        else {
          failed.push(job.n)
          outcomes.jobFailed()
        }
      }
    }
    const again = (job: Waiting): void => {
      waiting.push(job)
      if (idle > 0) void work()
    }

    for (let worker = 0; worker < workers; worker++) void work()
  }

  await application.measure(
    parent,
    () => {
      const jobs = jobsOf(load)
      for (const { queue, workers } of load.queues) {
        const own = jobs.filter((job) => job.queue === queue)
        startQueue(
          workers,
          own.map(({ n }) => ({ n, tries: 0 })),
        )
      }
    },
    async () => failed,
  )
  await application.close()
})

/** As a queue that is in wide use has it: 17 s, 19 s, 23 s, … */
function pauseMs(tries: number): number {
  return (15 + 2 ** tries) * 1_000
}
