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
       pg_backend_pid() AS pid`
// The start time tells processes of different servers apart.
const BACKEND = /* sql */ `
SELECT pg_backend_pid() || ' since ' || extract(epoch FROM pg_postmaster_start_time()) AS backend`

/**
 * Asks what it talks to.
 *
 * @throws {TriphaseError} `SERVER_TOO_OLD`, `CONNECTION_FAILED`, `LOGIN_REFUSED`.
 */
export async function describeServer(database: Database): Promise<ServerDescription> {
  const { rows, announcedPid } = await database.queryAnnounced<{ number: number; name: string; pid: number }>(
    DESCRIBE,
  )
  const { number, name, pid } = rows[0] as { number: number; name: string; pid: number }
  const version = name.split(' ')[0] as string
  if (number < OLDEST * 10_000) {
    throw new TriphaseError(
      'SERVER_TOO_OLD',
      `This server is PostgreSQL ${version}, and Triphase needs ${OLDEST} or later. Update the server, or use another one.`,
    )
  }
  return { version, behindPooler: announcedPid !== null && announcedPid !== pid }
}

/** Names the server's process that runs this very statement, among those of all servers. */
export async function backendOf(run: RunStatement): Promise<string> {
  const [row] = (await run(BACKEND, [])) as { backend: string }[]
  return (row as { backend: string }).backend
}
