import { createEngine, defineStagedTask, pgTransactor, unchecked } from 'triphase'
import { runSubject } from '../support/subject.ts'
import { Application, askModel, BEGIN_ANALYSIS, COMPLETE_ANALYSIS, LOCK_CAPTURE } from './application.ts'
import { type IncidentOrder, TASK } from './load.ts'

/** The same job in three phases, on an engine with its default settings beside the application's pool. */
await runSubject<IncidentOrder>(async (order, parent) => {
  const { load, api, engineUrl, directUrl } = order
  const application = new Application(order)
  const { pool, outcomes } = application
  const failedIds: string[] = []

  const analyse = defineStagedTask({
    name: TASK,
    input: unchecked<{ n: number }>(),
    prepare: async ({ tx, input }) => {
      await tx.query(LOCK_CAPTURE, [input.n])
      await tx.query(BEGIN_ANALYSIS, [input.n])
    },
    call: ({ input, signal }) => askModel(api, input.n, signal),
    commit: async ({ tx, input, answer }) => {
      await tx.query(COMPLETE_ANALYSIS, [input.n, JSON.stringify(answer)])
    },
  })
  const engine = createEngine({
    url: engineUrl,
    directUrl,
    transactor: pgTransactor(pool),
    tasks: [analyse],
    queues: Object.fromEntries(load.queues.map(({ queue, workers }) => [queue, workers])),
  })
  engine.telemetry.on('job:completed', () => outcomes.jobDone())
  engine.telemetry.on('job:retried', ({ error }) => outcomes.attemptFailed(error.message))
  engine.telemetry.on('job:discarded', ({ jobId, error }) => {
    outcomes.attemptFailed(error.message)
    failedIds.push(jobId)
    outcomes.jobFailed()
  })

  await application.measure(
    parent,
    () => engine.start(),
    async () => {
      const jobs = await Promise.all(failedIds.map((id) => engine.job(id)))
      return jobs.map((job) => (job as { input: { n: number } }).input.n)
    },
  )
  await engine.stop()
  await application.close()
})
