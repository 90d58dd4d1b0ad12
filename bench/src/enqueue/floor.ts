import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import { from as copyFrom } from 'pg-copy-streams'
import { runSubject, timed } from '../support/subject.ts'

interface EnqueueFloorOrder {
  jobs: number
  url: string
  way: 'values' | 'unnamed' | 'unnest' | 'copy'
  /** Statements under way at a time, each on a connection of its own. */
  atOnce: number
  /** Jobs a statement. */
  batch: number
}

type Insert = (client: pg.Client, from: number, length: number) => Promise<unknown>

const inputs = (from: number, length: number): string[] =>
  Array.from({ length }, (_, index) => JSON.stringify({ n: from + index }))

const VALUES = 'INSERT INTO job (queue, task, input) VALUES ($1, $2, $3) RETURNING id'
const valuesOf = (n: number): string[] => ['default', 'no-op', JSON.stringify({ n })]

const WAYS: Record<EnqueueFloorOrder['way'], Insert> = {
  values: (client, n) => client.query({ name: 'insert', text: VALUES, values: valuesOf(n) }),
  /** What a pooler lets pass. */
  unnamed: (client, n) => client.query(VALUES, valuesOf(n)),
  unnest: (client, from, length) =>
    client.query('INSERT INTO job (queue, task, input) SELECT $1, $2, unnest($3::json[]) RETURNING id', [
      'default',
      'no-op',
      inputs(from, length),
    ]),
  copy: (client, from, length) => {
    // Of the characters that mean something to COPY these inputs have none.
    const lines = inputs(from, length).map((input) => `default\tno-op\t${input}\n`)
    return pipeline(
      Readable.from([lines.join('')]),
      client.query(copyFrom('COPY job (queue, task, input) FROM STDIN')),
    )
  },
}

await runSubject<EnqueueFloorOrder>(async ({ jobs, url, way, atOnce, batch }, parent) => {
  const insert = WAYS[way]
  let next = 0

  const lane = async (client: pg.Client): Promise<void> => {
    for (let from = next; from < jobs; from = next) {
      next += batch
      await insert(client, from, Math.min(batch, jobs - from))
    }
  }

  await timed(parent, async () => {
    const clients = Array.from({ length: atOnce }, () => new pg.Client({ connectionString: url }))
    await Promise.all(clients.map((client) => client.connect()))
    await Promise.all(clients.map(lane))
    await Promise.all(clients.map((client) => client.end()))
    return {}
  })
})
