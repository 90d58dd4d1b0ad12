import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { CLAIM, FINISH_BY_DELETE, FINISH_WITH_HISTORY, FLOOR_TABLES } from '../floor/tables.ts'
import { inTransaction, onConnection, oneRow } from '../support/database.ts'
import { APPLICATION_INSERT, type Counts, type Settings, type System, Tally } from './system.ts'

/** The least SQL that does the same durable work. */
export interface FloorSettings extends Settings {
  /** Jobs a claim. */
  batch?: number
  /** Whether what is done is kept. */
  history?: boolean
  /** Lanes that claim, run and finish batches, each on a connection of its own. */
  lanes?: number
  /** Pause of a lane that finds nothing, in ms; without it, the lane ends. */
  pollMs?: number
  /** How several jobs are written. */
  many?: 'unnest' | 'copy'
  /** What a pooler lets pass. */
  unnamed?: boolean
}

const COUNT = `
SELECT (SELECT count(*) FROM job)::int AS live,
       (SELECT count(*) FROM job_history WHERE state = 'completed')::int AS done,
       (SELECT count(DISTINCT n) FROM (
          SELECT (input ->> 'n')::int AS n FROM job
          UNION ALL SELECT (input ->> 'n')::int FROM job_history) every)::int AS different`

const VALUES = 'INSERT INTO job (queue, task, input) VALUES ($1, $2, $3) RETURNING id'
const UNNEST = 'INSERT INTO job (queue, task, input) SELECT $1, $2, unnest($3::json[]) RETURNING id'
const COPY = 'COPY job (queue, task, input) FROM STDIN'

const inputs = (from: number, length: number): string[] =>
  Array.from({ length }, (_, index) => JSON.stringify({ n: from + index }))

interface ClaimedRow {
  id: string
  input: { n: number }
}

export const system: System = {
  install: (url) => onConnection(url, async (client) => void (await client.query(FLOOR_TABLES))),

  async open(url, settings: FloorSettings) {
    const {
      task = 'no-op',
      batch = 500,
      history = true,
      lanes = 2,
      pollMs,
      many = 'unnest',
      unnamed,
    } = settings
    const name = unnamed ? {} : { name: 'insert' }
    const pool = new pg.Pool({ connectionString: url, max: 16 })
    const acks = new Tally()
    let working: Promise<unknown> = Promise.resolve()
    let closing = false

    const lane = async (run: (n: number) => unknown): Promise<void> => {
      const client = await pool.connect()
      const finish = history ? FINISH_WITH_HISTORY : FINISH_BY_DELETE
      while (!closing) {
        const values = ['default', batch]
        const { rows } = await client.query<ClaimedRow>({ name: 'claim', text: CLAIM, values })
        if (rows.length > 0) {
          await Promise.all(rows.map(({ input }) => run(input.n)))
          await client.query({ name: 'finish', text: finish, values: [rows.map(({ id }) => id)] })
          acks.add(rows.length)
        } else if (pollMs === undefined) break
        else await delay(pollMs)
      }
      client.release()
    }

    return {
      enqueue: (n) => pool.query({ ...name, text: VALUES, values: ['default', task, JSON.stringify({ n })] }),
      async enqueueMany(from, length) {
        if (many === 'unnest') return pool.query(UNNEST, ['default', task, inputs(from, length)])
        const client = await pool.connect()
        // Of the characters that mean something to COPY these inputs have none.
        const lines = inputs(from, length).map((input) => `default\t${task}\t${input}\n`)
        await pipeline(Readable.from([lines.join('')]), client.query(copyFrom(COPY)))
        client.release()
      },
      enqueueWithRow: (n) =>
        inTransaction(pool, async (client) => {
          await client.query({ name: 'row', text: APPLICATION_INSERT, values: [n] })
          await client.query({ ...name, text: VALUES, values: ['default', task, JSON.stringify({ n })] })
        }),
      async work(run) {
        working = Promise.all(Array.from({ length: lanes }, () => lane(run)))
      },
      done: (jobs) => acks.reaches(jobs),
      async close() {
        closing = true
        await working
        await pool.end()
      },
    }
  },

  count: (url) => oneRow<Counts>(url, COUNT),
}
