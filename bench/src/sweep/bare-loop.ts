import { setImmediate as endOfTurn } from 'node:timers/promises'
import type pg from 'pg'
import type { Call, Row } from './records.ts'

interface Waiting {
  id: string
  result: string
  committed: () => void
}

export interface LoopOptions {
  concurrency: number
  /** Names its statements, so that they are planned once a connection; a pooler would not let that pass. */
  named: boolean
}

const PAGE = 1_000

const READ = `SELECT * FROM record WHERE status = 'pending' AND id > $1 ORDER BY id LIMIT ${PAGE}`
const MARK = `
UPDATE record SET status = 'done', result = m.result
FROM unnest($1::bigint[], $2::text[]) AS m(id, result) WHERE record.id = m.id AND record.status = 'pending'`

/**
 * What a careful author writes in place of a sweep: pages by keyset, the next one read meanwhile; so many calls at a
 * time; a call's place is free when its mark has committed; marks that have gathered go in one statement. It knows of no
 * second process, no failure, no retry, no lock of somebody else's, no limit, no pause and no progress.
 */
export class BareLoop {
  readonly #pool: pg.Pool
  readonly #options: LoopOptions
  readonly #call: Call
  #waiting: Waiting[] = []
  #writing = false

  constructor(pool: pg.Pool, options: LoopOptions, call: Call) {
    this.#pool = pool
    this.#options = options
    this.#call = call
  }

  async run(): Promise<void> {
    const rows = this.#rows()
    await Promise.all(Array.from({ length: this.#options.concurrency }, () => this.#lane(rows)))
  }

  async #lane(rows: AsyncGenerator<Row>): Promise<void> {
    for await (const row of { [Symbol.asyncIterator]: () => ({ next: () => rows.next() }) }) {
      const result = await this.#call(row)
      await new Promise<void>((committed) => this.#mark({ id: row.id, result, committed }))
    }
  }

  async *#rows(): AsyncGenerator<Row> {
    let page = await this.#read('0')
    while (page.length > 0) {
      const following = this.#read(page.at(-1)?.id ?? '0')
      yield* page
      page = await following
    }
  }

  async #read(after: string): Promise<Row[]> {
    return (await this.#pool.query<Row>({ ...this.#name('read'), text: READ, values: [after] })).rows
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
      const values = [marks.map(({ id }) => id), marks.map(({ result }) => result)]
      await this.#pool.query({ ...this.#name('mark'), text: MARK, values })
      for (const { committed } of marks) committed()
    }
    this.#writing = false
  }

  #name(name: string): { name?: string } {
    return this.#options.named ? { name } : {}
  }
}
