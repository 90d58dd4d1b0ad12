import type { Database } from './database.ts'

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
 * Makes the partitions of today and the next days where they are missing; returns how many.
 *
 * No ack waits for it: a new partition is a plain table that is attached, and the lock for that (SHARE UPDATE
 * EXCLUSIVE) lets rows in.
 */
export async function makePartitions(database: Database, at?: Date): Promise<number> {
  const now = at ?? (await databaseTime(database))
  let made = 0
  for (const table of PARTITIONED) {
    const existing = (await listPartitions(database, table)).map(({ name }) => name)
    made += await makeAhead(database, table, new Set(existing), now)
  }
  return made
}

/**
 * Runs a statement that writes history, and once more if the day had no partition yet. It drops none: that takes its
 * time while somebody reads them, and the writer waits.
 */
export async function withPartition<Value>(database: Database, write: () => Promise<Value>): Promise<Value> {
  try {
    return await write()
  } catch (error) {
    if (!isMissingPartition(error)) throw error
    await makePartitions(database)
    return await write()
  }
}

/**
 * Makes the partitions of today and the next days, and drops those whose every row is older than `retentionMs`.
 *
 * Neither may ever make an ack wait. To drop one, its parent must be locked for everybody, which with a queue behind it
 * would stall every ack until the last reader of history leaves: so the lock is taken with NOWAIT, at once or not at
 * all, and a partition that cannot be had now is tried again later. (DETACH CONCURRENTLY would wait without a queue
 * behind it, but keeps a connection for as long as the oldest reader, and cannot be bounded behind a pooler.)
 */
export async function maintainPartitions(
  database: Database,
  retentionMs: number,
  at?: Date,
): Promise<PartitionWork> {
  const now = at ?? (await databaseTime(database))
  const work: PartitionWork = { made: await makePartitions(database, now), dropped: 0, postponed: 0 }
  for (const table of PARTITIONED) {
    for (const { name, attached } of await listPartitions(database, table)) {
      if (endOf(name) > now.getTime() - retentionMs) continue
      if (await dropPartition(database, table, name, attached)) work.dropped++
      else work.postponed++
    }
  }
  return work
}

function listPartitions(
  database: Database,
  table: Partitioned,
): Promise<{ name: string; attached: boolean }[]> {
  return database.query(LIST, [database.schema, table])
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
      await dropNow(database, table, name, attached)
      return true
    } catch (error) {
      if (codeOf(error) === '42P01') return true
      if (codeOf(error) !== LOCK_NOT_AVAILABLE) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 45))
  }
  return false
}

/**
 * In one message, which the server carries out as one transaction: if the network or this process stopped between two
 * statements, the locks would be held until somebody noticed, and every ack would wait.
 */
async function dropNow(
  database: Database,
  table: Partitioned,
  name: string,
  attached: boolean,
): Promise<void> {
  const lockParent = `LOCK TABLE ONLY triphase.${table} IN ACCESS EXCLUSIVE MODE NOWAIT;`
  const drop = `LOCK TABLE triphase.${name} IN ACCESS EXCLUSIVE MODE NOWAIT; DROP TABLE triphase.${name}`
  await database.query(attached ? `${lockParent} ${drop}` : drop)
}

/**
 * Whether a row could not be written because its day has no partition yet. The message may be in any language
 * (`lc_messages`), and the driver the application's; a check that failed names its constraint.
 */
function isMissingPartition(error: unknown): boolean {
  if (codeOf(error) !== '23514') return false
  const { table, constraint, table_name, constraint_name } = error as Record<string, unknown>
  return !(constraint ?? constraint_name) && PARTITIONED.some((name) => name === (table ?? table_name))
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
