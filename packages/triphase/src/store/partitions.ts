import type { Database, EngineTransaction } from './database.ts'

/** The tables whose rows are dropped by the day. */
const PARTITIONED = ['job_history', 'job_attempt'] as const
type Partitioned = (typeof PARTITIONED)[number]

const DAY_MS = 86_400_000
const DAYS_AHEAD = 7

// The partitions of a table by name; those that are detached but not dropped yet are plain tables of the same names.
const LIST = /* sql */ `
SELECT c.relname AS name, i.inhparent IS NOT NULL AS attached
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE n.nspname = $1 AND c.relkind = 'r' AND c.relname ~ ('^' || $2 || '_[0-9]{8}$')
ORDER BY 1`

// Rows are dated by the database's clock, so its days are the ones that count.
const NOW = /* sql */ `SELECT clock_timestamp() AS now`

const LOCK_NOT_AVAILABLE = '55P03'
const ALREADY_EXISTS = new Set(['42P07', '42710', '23505', '42P17'])

export interface PartitionWork {
  made: number
  dropped: number
  /** Old partitions that somebody was reading or writing; they are tried again next time. */
  postponed: number
}

/**
 * Makes the partitions of today and the next days, and drops those whose every row is older than `retentionMs`.
 *
 * Neither may ever make an ack wait. A new partition is a plain table that is attached: the lock for that (SHARE
 * UPDATE EXCLUSIVE) lets rows in. To drop one, its parent must be locked for everybody, which with a queue behind it
 * would stall every ack until the last reader of history leaves: so the lock is taken with NOWAIT, at once or not at
 * all, and a partition that cannot be had now is tried again later. (DETACH CONCURRENTLY would wait without a queue
 * behind it, but keeps a connection for as long as the oldest reader, and cannot be bounded behind a pooler.)
 */
export async function maintainPartitions(
  database: Database,
  retentionMs: number,
  at?: Date,
): Promise<PartitionWork> {
  const work: PartitionWork = { made: 0, dropped: 0, postponed: 0 }
  const now = at ?? (await databaseTime(database))
  for (const table of PARTITIONED) {
    const existing = await database.query<{ name: string; attached: boolean }>(LIST, [database.schema, table])
    work.made += await makeAhead(database, table, new Set(existing.map(({ name }) => name)), now)
    for (const { name, attached } of existing) {
      if (endOf(name) > now.getTime() - retentionMs) continue
      if (await dropPartition(database, table, name, attached)) work.dropped++
      else work.postponed++
    }
  }
  return work
}

async function databaseTime(database: Database): Promise<Date> {
  const [row] = await database.query<{ now: Date }>(NOW)
  return (row as { now: Date }).now
}

async function makeAhead(
  database: Database,
  table: Partitioned,
  existing: Set<string>,
  now: Date,
): Promise<number> {
  let made = 0
  for (let day = 0; day <= DAYS_AHEAD; day++) {
    const from = startOfDay(now.getTime() + day * DAY_MS)
    if (existing.has(nameOf(table, from))) continue
    if (await makePartition(database, table, from)) made++
  }
  return made
}

/** False when somebody else has just made it. */
async function makePartition(database: Database, table: Partitioned, from: number): Promise<boolean> {
  const name = nameOf(table, from)
  const [lower, upper] = [new Date(from).toISOString(), new Date(from + DAY_MS).toISOString()]
  try {
    await database.transaction(async ({ query }) => {
      await query(`SET LOCAL lock_timeout = '2s'`)
      await query(`CREATE TABLE triphase.${name} (LIKE triphase.${table} INCLUDING ALL)`)
      await query(`ALTER TABLE triphase.${table} ATTACH PARTITION triphase.${name}
        FOR VALUES FROM ('${lower}') TO ('${upper}')`)
    })
    return true
  } catch (error) {
    if (ALREADY_EXISTS.has(codeOf(error))) return false
    throw error
  }
}

const DROP_TRIES = 40

/** Takes the lock between two acks: tries it often, and never stands in a queue for it. */
async function dropPartition(
  database: Database,
  table: Partitioned,
  name: string,
  attached: boolean,
): Promise<boolean> {
  for (let tries = 0; tries < DROP_TRIES; tries++) {
    try {
      await database.transaction((transaction) => dropNow(transaction, table, name, attached))
      return true
    } catch (error) {
      if (codeOf(error) === '42P01') return true
      if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 45))
  }
  return false
}

async function dropNow(
  { query }: EngineTransaction,
  table: Partitioned,
  name: string,
  attached: boolean,
): Promise<void> {
  if (attached) await query(`LOCK TABLE ONLY triphase.${table} IN ACCESS EXCLUSIVE MODE NOWAIT`)
  await query(`LOCK TABLE triphase.${name} IN ACCESS EXCLUSIVE MODE NOWAIT`)
  await query(`DROP TABLE triphase.${name}`)
}

/** Whether a row could not be written because its day has no partition yet. */
export function isMissingPartition(error: unknown): boolean {
  return codeOf(error) === '23514' && /no partition of relation/.test((error as Error).message)
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

function nameOf(table: Partitioned, from: number): string {
  return `${table}_${new Date(from).toISOString().slice(0, 10).replaceAll('-', '')}`
}

function startOfDay(time: number): number {
  return Math.floor(time / DAY_MS) * DAY_MS
}

function endOf(name: string): number {
  const [year, month, day] = [name.slice(-8, -4), name.slice(-4, -2), name.slice(-2)]
  return Date.parse(`${year}-${month}-${day}T00:00:00Z`) + DAY_MS
}
