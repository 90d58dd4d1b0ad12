import pg from 'pg'
import { runSubject, timed } from '../support/subject.ts'
import { ACKS, type Batch, CLAIMS, type Shape } from './shapes.ts'

export interface RepeatOrder {
  url: string
  kind: 'claim' | 'ack'
  shape: string
  /** Jobs a statement. */
  batch: number
  jobs: number
}

const CLAIM_ALL = `
UPDATE triphase.job SET state = 'executing', claim_no = 1, attempt = 1, process_id = 1, claimed_at = clock_timestamp()
RETURNING id::text`

const none: null[] = []
const completed = ({ ids }: Batch): unknown[] => [
  ids,
  ids.map(() => 1),
  ids.map(() => 'completed'),
  ...Array.from({ length: 9 }, () => none),
  true,
]
const claimed = ({ size }: Batch): unknown[] => ['default', 1, size, 1, 0, 0, 0, 0]

/** Jobs in an answer: rows, or one array of ids. */
function idsIn(rows: readonly Record<string, unknown>[]): number {
  const [only] = Object.values(rows[0] ?? {})
  if (rows.length === 1 && Array.isArray(only)) return only.length
  const isArray = rows.length === 1 && typeof only === 'string' && only.startsWith('{')
  return isArray ? only.split(',').length : rows.length
}

/** One connection that sends the same statement until all jobs are through. */
await runSubject<RepeatOrder>(async ({ url, kind, shape: name, batch, jobs }, parent) => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  const shape = (kind === 'claim' ? CLAIMS : ACKS)[name] as Shape
  const text = await shape.text(client)
  const valuesOf = shape.values ?? (kind === 'claim' ? claimed : completed)
  const ids = kind === 'ack' ? (await client.query<{ id: string }>(CLAIM_ALL)).rows.map(({ id }) => id) : []
  if (kind === 'ack') await client.query('VACUUM triphase.job')
  await timed(parent, async () => {
    let done = 0
    for (let from = 0; from < jobs; from += batch) {
      const values = valuesOf({ size: batch, ids: ids.slice(from, from + batch) })
      const answer = await client.query({ text, values, ...(shape.named ? { name } : {}) })
      done += idsIn(answer.rows)
    }
    return { faults: done === jobs ? [] : [`${done} of ${jobs} jobs`] }
  })
  await client.end()
})
