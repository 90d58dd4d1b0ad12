import pg from 'pg'
import { createEngine, defineSweep, type Sweep } from 'triphase'
import { BareLoop, type LoopStatements, leastStatements, PAGE } from './bare-loop.ts'
import type { Call, Row } from './records.ts'

/** Something that goes over all records. */
export interface Subject {
  /** Answers with the seconds that it took. */
  work(): Promise<number>
  close(): Promise<void>
}

/** Statements of a loop: the least, the least with names, or those of the sweep itself. */
export type LoopKind = 'least' | 'named' | 'same'

export async function bareLoop(
  url: string,
  kind: LoopKind,
  concurrency: number,
  call: Call,
): Promise<Subject> {
  const pool = new pg.Pool({ connectionString: url, application_name: 'bare loop' })
  const statements =
    kind === 'same' ? await sameStatements(url, pool) : leastStatements(pool, kind === 'named')
  return {
    async work() {
      const began = Date.now()
      await new BareLoop(statements, concurrency, call).run()
      return (Date.now() - began) / 1_000
    },
    close: () => pool.end(),
  }
}

const COUNTING_PAGE = `
INSERT INTO triphase.sweep_page (run_id, job_id, to_key) VALUES (0, 0, '') RETURNING id::text`

/** What a sweep sends: records with their keys, and marks that skip locked rows and count themselves in a page's row. */
async function sameStatements(url: string, pool: pg.Pool): Promise<LoopStatements> {
  const { table } = answering(async () => '')
  const engine = createEngine({ url })
  await engine.migrate()
  await engine.stop()
  const application = {
    query: (text: string, values: readonly unknown[] = []) => pool.query(text, [...values]),
    schema: 'triphase',
    text: (sql: string) => sql,
  }
  const { rows } = await pool.query<{ id: string }>(COUNTING_PAGE)
  const page = rows[0]?.id ?? null
  return {
    async read(after) {
      const range = { after: after === null ? null : JSON.stringify([after]), upTo: null }
      const records = await table.pending(application, range, PAGE)
      return records.map(({ row }) => row as unknown as Row)
    },
    mark: (answers) =>
      table.mark(
        application,
        answers.map(({ id, result }) => ({ key: JSON.stringify([id]), result, error: null })),
        page,
      ),
  }
}

function answering(call: Call, concurrency = 1): Sweep<Row> {
  return defineSweep<Row>({
    name: 'answer',
    table: { name: 'record', key: 'id' },
    concurrency,
    each: call,
  })
}

/** An engine with its defaults, from its start to the moment at which its run is complete. */
export async function triphase(url: string, concurrency: number, call: Call): Promise<Subject> {
  const sweep = answering(call, concurrency)
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
