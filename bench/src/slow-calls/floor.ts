import pg from 'pg'
import { FINISH_STAGED, STORE_ANSWER } from '../floor/tables.ts'
import { inTransaction } from '../support/database.ts'
import { RunCount, runSubject, timed } from '../support/subject.ts'
import { COMPLETE, PREPARE } from './analysis.ts'
import { type SlowCallsOrder, slowCall } from './call.ts'

const ENGINE_CONNECTIONS = 1
const APPLICATION_CONNECTIONS = 2
const PHASES = JSON.stringify({ prepare: 1, call: 1_000, commit: 1 })

interface FloorJob {
  id: string
  n: number
}

/** Slots that take claimed jobs through the three transactions of a staged job, as bare SQL on as many connections. */
await runSubject<SlowCallsOrder>(async (order, parent) => {
  const runs = new RunCount(order.jobs)
  const call = slowCall(order)
  const engine = new pg.Pool({ connectionString: order.url, max: ENGINE_CONNECTIONS })
  const application = new pg.Pool({ connectionString: order.url, max: APPLICATION_CONNECTIONS })

  const runJob = async ({ id, n }: FloorJob): Promise<void> => {
    await inTransaction(application, (client) =>
      client.query({ name: 'prepare', text: PREPARE, values: [n] }),
    )
    runs.count(n)
    const answer = JSON.stringify(await call(n))
    await engine.query({ name: 'store', text: STORE_ANSWER, values: [id, answer] })
    await inTransaction(application, async (client) => {
      await client.query({ name: 'complete', text: COMPLETE, values: [n, answer] })
      await client.query({ name: 'finish', text: FINISH_STAGED, values: [id, PHASES] })
    })
  }

  await timed(parent, async () => {
    const { rows } = await engine.query<FloorJob>(`SELECT id, (input ->> 'n')::int AS n FROM job ORDER BY id`)
    const jobs = rows.values()
    const slot = async (): Promise<void> => {
      for (const job of jobs) await runJob(job)
    }
    await Promise.all(Array.from({ length: order.concurrency }, slot))
    await Promise.all([engine.end(), application.end()])
    return { faults: runs.faults() }
  })
})
