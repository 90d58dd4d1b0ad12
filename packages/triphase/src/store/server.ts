import { TriphaseError } from '../errors.ts'
import type { Database } from './database.ts'
import type { RunStatement } from './insert.ts'

/** What stands at the other end of a URL. */
export interface ServerDescription {
  /** As `16.4`. */
  version: string
  /** The server's process is not the one that was announced at login: a pooler stands between. */
  behindPooler: boolean
}

const OLDEST = 14

const DESCRIBE = /* sql */ `
SELECT current_setting('server_version_num')::int AS number, current_setting('server_version') AS name,
       current_setting('DateStyle') AS date_style, current_setting('transaction_isolation') AS isolation,
       current_setting('transaction_read_only') AS read_only, pg_is_in_recovery() AS recovers, pg_backend_pid() AS pid`
const PROCESS_ID = /* sql */ `SELECT pg_backend_pid() AS pid`
// The start time tells processes of different servers apart.
const BACKEND = /* sql */ `
SELECT pg_backend_pid() || ' since ' || extract(epoch FROM pg_postmaster_start_time()) AS backend`

/**
 * Asks what it talks to.
 *
 * @throws {TriphaseError} `SERVER_TOO_OLD`, `INVALID_CONFIG`, `CONNECTION_FAILED`, `LOGIN_REFUSED`.
 */
export async function describeServer(database: Database): Promise<ServerDescription> {
  const { rows, announcedPid } = await database.queryAnnounced<DescribeRow>(DESCRIBE)
  const { number, name, pid, ...settings } = rows[0] as DescribeRow
  const version = name.split(' ')[0] as string
  if (number < OLDEST * 10_000) {
    throw new TriphaseError(
      'SERVER_TOO_OLD',
      `This server is PostgreSQL ${version}, and Triphase needs ${OLDEST} or later. Update the server, or use another one.`,
    )
  }
  if (settings.recovers) {
    throw new TriphaseError(
      'CONNECTION_FAILED',
      'This server is a standby, which takes no writes. Let the URL lead to the primary.',
    )
  }
  const fault = settingsFault(settings)
  if (fault) throw new TriphaseError('INVALID_CONFIG', fault)
  return { version, behindPooler: announcedPid !== null && announcedPid !== pid }
}

/** What statements of the engine cannot work with, and the remedy. */
function settingsFault(settings: Settings): string | undefined {
  const { date_style: dateStyle, isolation } = settings
  if (!dateStyle.startsWith('ISO'))
    return `Sessions of the engine's role write times in the style ${dateStyle}, which Triphase cannot read. Set it for the role: ALTER ROLE … SET DateStyle = 'ISO'.`
  if (settings.read_only === 'on')
    return "Sessions of the engine's role take no writes. Set it for the role: ALTER ROLE … SET default_transaction_read_only = off."
  if (!isolation.startsWith('read '))
    return `Statements of the engine's role are ${isolation}: those that others are beside would fail, where read committed ones wait or pass them over. Set it for the role: ALTER ROLE … SET default_transaction_isolation = 'read committed'; or give the engine a role of its own.`
  return undefined
}

interface Settings {
  date_style: string
  isolation: string
  read_only: string
  recovers: boolean
}

interface DescribeRow extends Settings {
  number: number
  name: string
  pid: number
}

/** Whether the server's process is not the one that was announced at login: a pooler stands between. */
export async function isBehindPooler(database: Database): Promise<boolean> {
  const { rows, announcedPid } = await database.queryAnnounced<{ pid: number }>(PROCESS_ID)
  return announcedPid !== null && announcedPid !== rows[0]?.pid
}

/** Enough to see one server connection on both ends, where they draw from one pool that others use too. */
const LOOKS = 5

/**
 * Whether two connections that are open at the same time are served by one process of the server: then a pooler hands it
 * from the one to the other with each transaction, and settings of a session are not kept. Asks, and leaves nothing behind.
 */
export async function shareServerConnections(one: RunStatement, other: RunStatement): Promise<boolean> {
  const [ofOne, ofOther] = [new Set<string>(), new Set<string>()]
  for (let looks = 0; looks < LOOKS; looks++) {
    ofOne.add(await backendOf(one))
    ofOther.add(await backendOf(other))
    if ([...ofOne].some((backend) => ofOther.has(backend))) return true
  }
  return false
}

/** Names the server's process that runs this very statement, among those of all servers. */
async function backendOf(run: RunStatement): Promise<string> {
  const [row] = (await run(BACKEND, [])) as { backend: string }[]
  return (row as { backend: string }).backend
}

/** How many connections a server, a role or a database lets in. */
export interface ConnectionLimit {
  /** `max_connections`: what is left of it for ordinary roles. */
  of: 'max_connections' | 'role' | 'database'
  /** Of the role or the database. */
  name: string | null
  allows: number
  /** Connections that others than the engines of this name have open. */
  others: number
}

/** What bounds how many connections processes may open. */
export interface ConnectionLimits {
  /** Processes with the engine's name that are not stopping. */
  processes: number
  limits: ConnectionLimit[]
}

// Everybody may see who is connected and as whom. Roles that are superusers have no limit, in no database either.
const LIMITS = /* sql */ `
WITH session AS (
  SELECT usename, datname FROM pg_stat_activity
  WHERE usename IS NOT NULL AND datname IS NOT NULL
    AND (application_name = ANY ($2::text[]) AND datname = ANY ($4::text[])) IS NOT TRUE
)
SELECT (SELECT count(*) FROM triphase.process WHERE name = $1 AND NOT stopping)::int AS processes, (
  SELECT json_agg(json_build_object('of', of, 'name', name, 'allows', allows, 'others', others))
  FROM (
    SELECT 'max_connections' AS of, NULL AS name,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0) AS allows,
           (SELECT count(*) FROM session) AS others
    UNION ALL
    SELECT 'role', rolname, rolconnlimit, (SELECT count(*) FROM session WHERE usename = rolname)
    FROM pg_roles WHERE rolname = ANY ($3::text[]) AND rolconnlimit >= 0 AND NOT rolsuper
    UNION ALL
    SELECT 'database', datname, datconnlimit, (SELECT count(*) FROM session s WHERE s.datname = d.datname)
    FROM pg_database d
    WHERE datname = ANY ($4::text[]) AND datconnlimit >= 0
      AND EXISTS (SELECT FROM pg_roles WHERE rolname = ANY ($3::text[]) AND NOT rolsuper)
  ) every
)::text AS limits`

/** Asks what bounds the connections of engines with this name, which log in to these databases with these roles. */
export async function connectionLimits(
  database: Database,
  { name, roles, databases }: { name: string; roles: readonly string[]; databases: readonly string[] },
): Promise<ConnectionLimits> {
  const own = [name, `${name}-engine`, `${name}-listen`]
  const [row] = await database.query<{ processes: number; limits: string }>(LIMITS, [
    name,
    own,
    roles,
    databases,
  ])
  const { processes, limits } = row as { processes: number; limits: string }
  return { processes, limits: JSON.parse(limits) }
}
