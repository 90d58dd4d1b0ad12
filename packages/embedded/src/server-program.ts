import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import type { Account } from './account.ts'
import { EmbeddedPostgresError, systemErrorCode } from './errors.ts'

/**
 * Nothing is inherited: PGPORT, PGDATA or LD_LIBRARY_PATH of the caller would change what the programs do, and messages
 * have to be in English because some of them are recognised. TZ saves `initdb` the search for the machine's time zone.
 */
const ENVIRONMENT = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }

export interface ServerProgram {
  program: string
  arguments: string[]
  /** The data folder, in which the program is started. */
  data: string
  account: Account
  stdio: StdioOptions
}

/**
 * Where a program that is started inside the data folder finds it. Root may own a folder above it that the account of
 * the server cannot cross (`/root`); the kernel's own link to the current folder needs no way through there.
 */
export function dataFolderFor(account: Account, data: string): string {
  if (account.reaches(data)) return data
  if (process.platform === 'linux') return '/proc/self/cwd'
  throw new EmbeddedPostgresError(
    'DIRECTORY_NOT_WRITABLE',
    `Postgres does not run as root, and user id ${account.drop?.uid} cannot get to ${data}. ` +
      'Choose a directory outside of folders that are closed to other users, or do not run as root.',
  )
}

/**
 * Starts `initdb` or `postgres` in a session of its own, so that a Ctrl-C, which the terminal sends to every process of
 * the foreground group, does not reach it; as the account of the server when this process is root.
 */
export async function startProgram(options: ServerProgram): Promise<ChildProcess> {
  const { program, data, account, stdio } = options
  const child = spawn(program, options.arguments, {
    cwd: data,
    env: ENVIRONMENT,
    stdio,
    detached: true,
    // spawn() takes a signed number, which the nobody of macOS is only as -2.
    ...(account.drop && { uid: account.drop.uid | 0, gid: account.drop.gid | 0 }),
  })
  try {
    await once(child, 'spawn')
    return child
  } catch (cause) {
    throw notStarted(program, account, cause)
  }
}

function notStarted(program: string, account: Account, cause: unknown): EmbeddedPostgresError {
  const code = systemErrorCode(cause)
  if (code === 'ENOENT' && existsSync(program)) {
    const message =
      `${program} does not run here: it needs glibc, which this system (Alpine?) does not have. ` +
      'Set DATABASE_URL to a Postgres of your own, or use an image with glibc.'
    return new EmbeddedPostgresError('UNSUPPORTED_PLATFORM', message, { cause })
  }
  const advice =
    code === 'EPERM'
      ? `This process is root but may not become user id ${account.drop?.uid}; start it as an ordinary user.`
      : 'Check that it is executable and not on a file system that is mounted with noexec.'
  return new EmbeddedPostgresError('START_FAILED', `${program} could not be started (${code}). ${advice}`, {
    cause,
  })
}
