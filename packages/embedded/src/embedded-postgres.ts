import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Account, accountFor } from './account.ts'
import { findInstalledBinaries, type InstalledBinaries, prepareBinaries } from './binaries.ts'
import { ensureCluster, readPassword } from './cluster.ts'
import { ensureDatabase } from './database.ts'
import { assertOurs, claim, makeDirectory } from './directory.ts'
import { withDirectoryLock } from './directory-lock.ts'
import { explain, hasCode } from './errors.ts'
import { type Layout, layoutOf } from './layout.ts'
import { type CheckedOptions, checkOptions, type EmbeddedPostgresOptions } from './options.ts'
import { choosePort, rememberPort } from './port.ts'
import {
  findPostmaster,
  type Postmaster,
  settledPostmaster,
  startPostmaster,
  stopPostmaster,
} from './postmaster.ts'
import { identityOf, isAlive, type ProcessIdentity, pidOf } from './process-identity.ts'
import { rotateLog } from './server-log.ts'
import { SUPERUSER } from './simple-query.ts'
import { addUser, hasLivingUsers, removeUser } from './users.ts'
import { assertNotUsedElsewhere, endWatchdog, ensureWatchdog } from './watchdog-process.ts'

/** One user's hold on a running server. */
export interface EmbeddedPostgres {
  /** `postgres://postgres:<password>@127.0.0.1:<port>/<database>`. Contains the password: do not log it. */
  readonly url: string
  /** The TCP port on 127.0.0.1. It stays the same from one start to the next unless something else took it. */
  readonly port: number
  /** The absolute path of the directory, without symbolic links. */
  readonly directory: string
  /**
   * Gives the server up. The last user to do so stops it: open transactions are rolled back, data is written, and when
   * the promise resolves no process is left. Calling it again returns the same promise, or tries again after a failure.
   *
   * @throws {@link EmbeddedPostgresError} STOP_FAILED when the server did not end within 75 s; DIRECTORY_IN_USE when
   *   another process starts or stops it for more than 150 s; DISK_FULL, DIRECTORY_NOT_WRITABLE.
   */
  stop(): Promise<void>
}

/** What a start found or made, before the caller gets it. */
interface Opening {
  options: CheckedOptions
  installed: InstalledBinaries
  account: Account
  layout: Layout
}

/**
 * Starts a PostgreSQL 18 server on the data in a directory, or attaches to the one that already runs there.
 *
 * A new directory takes about half a second, an existing one a tenth, a running server a few milliseconds. The server
 * listens on 127.0.0.1 only and asks for a random password, which is part of the url. It lives as long as one process
 * uses it: after the last `stop()` it is stopped, and when all users were killed instead, a small watchdog process stops
 * it seconds later. A server that was killed is started again by the next call; its clients find it under the same url.
 *
 * It is made for trying things out and for tests. It handles no signals and takes no options from environment
 * variables: whether to use this or a DATABASE_URL is the caller's decision.
 *
 * @example
 * const postgres = await startEmbeddedPostgres({ directory: '.data/postgres', database: 'shop' })
 * const pool = new pg.Pool({ connectionString: postgres.url })
 * // ...
 * await pool.end()
 * await postgres.stop()
 *
 * @throws {@link EmbeddedPostgresError} with one of {@link EmbeddedPostgresErrorCode}.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const checked = checkOptions(options)
  const installed = findInstalledBinaries(process.platform, process.arch)
  const directory = resolve(checked.directory)
  try {
    const account = accountFor(directory)
    const layout = layoutOf(await makeDirectory(directory, account))
    await assertOurs(layout)
    await assertNotUsedElsewhere(layout)
    const opening = { options: checked, installed, account, layout }
    return await withDirectoryLock(layout, account, () => enter(opening))
  } catch (error) {
    throw explain(error, directory, 'START_FAILED')
  }
}

async function enter(opening: Opening): Promise<EmbeddedPostgres> {
  const { layout, account } = opening
  await claim(layout, account)
  const user = await addUser(layout, account)
  try {
    await ensureWatchdog(layout, account)
    const { pid, port, password } = await answeringServer(opening)
    const url = `postgres://${SUPERUSER}:${password}@127.0.0.1:${port}/${encodeURI(opening.options.database)}`
    const server = identityOf(pid)
    const stop = onceUntilFailure(() => leave(layout, account, user, server))
    return { url, port, directory: layout.directory, stop }
  } catch (error) {
    await leaveLocked(layout, user).catch((second) => {
      throw new AggregateError([error, second], `${error}; and afterwards ${second}`)
    })
    throw error
  }
}

/** A server that was found running may just be dying: then there is one more to start. */
async function answeringServer(opening: Opening): Promise<Postmaster & { password: string }> {
  const { layout, options } = opening
  const found = await settledPostmaster(layout)
  const postmaster = found ?? (await startServer(opening))
  try {
    const password = await readPassword(layout)
    await ensureDatabase({ port: postmaster.port, password }, options.database)
    return { ...postmaster, password }
  } catch (error) {
    if (found === undefined || findPostmaster(layout)?.pid === found.pid) throw error
    return answeringServer(opening)
  }
}

async function startServer({ layout, account, installed, options }: Opening): Promise<Postmaster> {
  const binaries = await prepareBinaries(installed, account, layout)
  await ensureCluster(layout, binaries, account)
  await rotateLog(layout)
  const postmaster = await startPostmaster({
    layout,
    binaries,
    account,
    settings: options.settings,
    choosePort: () => choosePort(layout),
  })
  await rememberPort(layout, account, postmaster.port)
  return postmaster
}

function onceUntilFailure(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined
  return () => {
    running ??= work().catch((error) => {
      running = undefined
      throw error
    })
    return running
  }
}

async function leave(layout: Layout, account: Account, user: string, server: ProcessIdentity): Promise<void> {
  try {
    if (!existsSync(layout.users)) return endWithoutDirectory(server)
    await withDirectoryLock(layout, account, () => leaveLocked(layout, user))
  } catch (error) {
    throw explain(error, layout.directory, 'STOP_FAILED')
  }
}

async function leaveLocked(layout: Layout, user: string): Promise<void> {
  await removeUser(layout, user)
  if (await hasLivingUsers(layout)) return
  await stopPostmaster(layout)
  await endWatchdog(layout)
}

/** The directory was deleted under the server, which would take up to a minute to notice. */
function endWithoutDirectory(server: ProcessIdentity): void {
  try {
    if (isAlive(server)) process.kill(pidOf(server), 'SIGQUIT')
  } catch (error) {
    if (!hasCode(error, 'ESRCH')) throw error
  }
}
