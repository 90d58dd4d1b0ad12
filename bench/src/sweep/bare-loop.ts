import { setImmediate as endOfTurn } from 'node:timers/promises'
import type pg from 'pg'
import type { Call, Row } from './records.ts'

export interface Answer {
  id: string
  result: string
}

interface Waiting extends Answer {
  committed: () => void
}

/** What the loop asks of the database. */
export interface LoopStatements {
  /** The next pending records after an id; none: the end. */
  read(after: string | null): Promise<Row[]>
  /** Marks records as done. */
  mark(answers: readonly Answer[]): Promise<unknown>
}

const READ = `SELECT * FROM record WHERE status = 'pending' AND id > $1 ORDER BY id LIMIT $2`
const MARK = `
UPDATE record SET status = 'done', result = m.result
FROM unnest($1::bigint[], $2::text[]) AS m(id, result) WHERE record.id = m.id AND record.status = 'pending'`

export const PAGE = 1_000

/**
 * The least that does it.
 *
 * @param named planned once a connection; a pooler would not let that pass.
 */
export function leastStatements(pool: pg.Pool, named: boolean): LoopStatements {
  const called = (name: string): { name?: string } => (named ? { name } : {})
  return {
    read: async (after) =>
      (await pool.query<Row>({ ...called('read'), text: READ, values: [after ?? '0', PAGE] })).rows,
    mark: (answers) => {
      const values = [answers.map(({ id }) => id), answers.map(({ result }) => result)]
      return pool.query({ ...called('mark'), text: MARK, values })
    },
  }
}

/**
 * What a careful author writes in place of a sweep: pages by keyset, the next one read meanwhile; so many calls at a
 * time; a call's place is free when its mark has committed; marks that have gathered go in one statement. It knows of no
 * second process, no failure, no retry, no lock of somebody else's, no limit, no pause and no progress.
 */
export class BareLoop {
  readonly #statements: LoopStatements
  readonly #concurrency: number
  readonly #call: Call
  #waiting: Waiting[] = []
  #writing = false

  constructor(statements: LoopStatements, concurrency: number, call: Call) {
    this.#statements = statements
    this.#concurrency = concurrency
    this.#call = call
  }

  async run(): Promise<void> {
    const rows = this.#rows()
    await Promise.all(Array.from({ length: this.#concurrency }, () => this.#lane(rows)))
  }

  async #lane(rows: AsyncGenerator<Row>): Promise<void> {
    for await (const row of { [Symbol.asyncIterator]: () => ({ next: () => rows.next() }) }) {
      const result = await this.#call(row)
      await new Promise<void>((committed) => this.#mark({ id: row.id, result, committed }))
    }
  }

  async *#rows(): AsyncGenerator<Row> {
    let page = await this.#statements.read(null)
    while (page.length > 0) {
      const following = this.#statements.read(page.at(-1)?.id ?? null)
      yield* page
      page = await following
    }
  }

  #mark(mark: Waiting): void {
    this.#waiting.push(mark)
    if (!this.#writing) void this.#write()
  }

  async #write(): Promise<void> {
    this.#writing = true
    while (this.#waiting.length > 0) {
      // Calls that end in the same turn go along.
      await endOfTurn()
      const marks = this.#waiting.splice(0)
      await this.#statements.mark(marks)
      for (const { committed } of marks) committed()
    }
    this.#writing = false
  }
}
