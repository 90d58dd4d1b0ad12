import type pg from 'pg'

// The statements that every job costs: as Triphase has them, and as they could be written instead.

/** One way to write a statement. */
export interface Shape {
  /** Asked of the database, since what Triphase runs stands there. */
  text: (client: pg.Client) => Promise<string>
  /** Sent with a name: parsed and planned once a connection, which a transaction-mode pooler does not let pass. */
  named?: boolean
  /** Other values than those of Triphase's own. */
  values?: (of: Batch) => unknown[]
}

/** What a statement is given: to claim so many, or to finish these, which process 1 claimed once. */
export interface Batch {
  size: number
  ids: readonly string[]
}

const written = (text: string) => async () => text

const FUNCTION = `
SELECT prosrc AS body, proargnames[1:pronargs] AS names, proargtypes::regtype[]::text[] AS types
FROM pg_proc WHERE oid = $1::regproc`

const STATEMENT = /BEGIN(?: RETURN QUERY)?\n([\s\S]*?);\n(?:RETURN acked;\n)?END/

/** The statement in one of Triphase's functions, as it would have to be sent without the function. */
function bodyOf(name: string): Shape['text'] {
  return async (client) => {
    const { rows } = await client.query<{ body: string; names: string[]; types: string[] }>(FUNCTION, [name])
    const { body = '', names = [], types = [] } = rows[0] ?? {}
    const [, statement = ''] = STATEMENT.exec(body) ?? []
    return names.reduce(
      (text, argument, index) =>
        text.replaceAll(new RegExp(`\\b${argument}\\b`, 'g'), `$${index + 1}::${types[index]}`),
      statement.replace(' INTO acked', ''),
    )
  }
}

const CLAIM_TOGETHER = `
WITH next AS (
  SELECT id FROM triphase.job
  WHERE queue = $1 AND state = 'available' AND crash_count < 2
  ORDER BY priority, position LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE triphase.job AS j
SET state = 'executing', claim_no = claim_no + 1, attempt = attempt + 1, process_id = 1, claimed_at = clock_timestamp()
FROM next WHERE j.id = next.id
RETURNING j.id::text, claim_no, attempt, max_attempts, crash_count, timeout_ms, queue, task, input::text, tags,
          inserted_at, claimed_at, traceparent, priority, position::text`

const together = ({ size }: Batch) => ['default', size]

/** By the words that a variant's name begins with. */
export const CLAIMS: Readonly<Record<string, Shape>> = {
  'a function, one scan for each priority (Triphase)': {
    text: written('SELECT * FROM triphase.claim_jobs($1, $2, $3, $4, $5, $6, $7, $8)'),
  },
  'the same without the function': { text: bodyOf('triphase.claim_jobs') },
  'one scan for all priorities, joined': { text: written(CLAIM_TOGETHER), values: together },
  'the same, named': { text: written(CLAIM_TOGETHER), values: together, named: true },
}

const FENCE_AS_JOIN = `
WITH gone AS (
  DELETE FROM triphase.job j USING unnest($1::bigint[], $2::int[]) AS a(id, claim_no)
  WHERE j.id = a.id AND j.claim_no = a.claim_no AND j.state = 'executing'
  RETURNING j.*
)
INSERT INTO triphase.job_history (
  id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority, crash_count,
  max_crashes, queue, task, state, input, result, tags, unique_key, traceparent)
SELECT id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
       crash_count, max_crashes, queue, task, 'completed', input, 'null', tags, unique_key, traceparent
FROM gone RETURNING id::text`

const UPDATE_IN_PLACE = `
UPDATE triphase.job j SET state = 'completed', process_id = NULL, claimed_at = NULL
FROM unnest($1::bigint[], $2::int[]) AS a(id, claim_no)
WHERE j.id = a.id AND j.claim_no = a.claim_no AND j.state = 'executing'
RETURNING j.id::text`

const fenced = ({ ids }: Batch) => [ids, ids.map(() => 1)]

export const ACKS: Readonly<Record<string, Shape>> = {
  'a function, fence as a filter (Triphase)': {
    text: written(
      'SELECT triphase.finish_jobs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)::text',
    ),
  },
  'the same without the function': { text: bodyOf('triphase.finish_jobs') },
  'fence as a join': { text: written(FENCE_AS_JOIN), values: fenced },
  'the same, named': { text: written(FENCE_AS_JOIN), values: fenced, named: true },
  'an update in place, named': { text: written(UPDATE_IN_PLACE), values: fenced, named: true },
}

const INSERT = `SELECT triphase.insert_job('no-op', 'default', 2::smallint, 10, 3::smallint, NULL, $1, 0, NULL, NULL, NULL)::text`
const NOTIFY = `SELECT pg_notify('triphase_triphase', '{"kind":"available","queue":"default"}')`

/** How processes are told of a new job: after how long, and by what. */
export interface HintShape {
  insert: string
  /** Sent after the insert. */
  notify?: string
  /** At most one in so many ms, on a connection of its own that no insert waits for. */
  everyMs?: number
}

export const HINTS: Readonly<Record<string, HintShape>> = {
  'after the commit, every 10 ms at most (Triphase)': { insert: INSERT, notify: NOTIFY, everyMs: 10 },
  'after each commit': { insert: INSERT, notify: NOTIFY },
  'in the transaction of each': {
    insert: `${INSERT}, pg_notify('triphase_triphase', '{"kind":"available","queue":"default"}')`,
  },
  none: { insert: INSERT },
}
