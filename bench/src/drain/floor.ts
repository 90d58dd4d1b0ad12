import pg from 'pg'
import { CLAIM, FINISH_BY_DELETE, FINISH_WITH_HISTORY } from '../floor/tables.ts'
import { RunCount, runSubject, timed } from '../support/subject.ts'

interface DrainFloorOrder {
  jobs: number
  url: string
  batch: number
  history: boolean
}

interface ClaimedRow {
  id: string
  input: { n: number }
}

const LANES = 2

/** Lanes that claim a batch, run it and finish it, each on a connection of its own, until nothing is left. */
await runSubject<DrainFloorOrder>(async ({ jobs, url, batch, history }, parent) => {
  const runs = new RunCount(jobs)
  const finish = history ? FINISH_WITH_HISTORY : FINISH_BY_DELETE

  const lane = async (client: pg.Client): Promise<void> => {
    for (;;) {
      const { rows } = await client.query<ClaimedRow>({
        name: 'claim',
        text: CLAIM,
        values: ['default', batch],
      })
      if (rows.length === 0) return
      for (const { input } of rows) runs.count(input.n)
      await client.query({ name: 'finish', text: finish, values: [rows.map(({ id }) => id)] })
    }
  }

  await timed(parent, async () => {
    const clients = Array.from({ length: LANES }, () => new pg.Client({ connectionString: url }))
    await Promise.all(clients.map((client) => client.connect()))
    await Promise.all(clients.map(lane))
    await Promise.all(clients.map((client) => client.end()))
    return { faults: runs.faults() }
  })
})
