/** What went wrong, as a word to branch on. The message of the error says what to do about it. */
export type EmbeddedPostgresErrorCode =
  /** An option has a value that cannot work. */
  | 'INVALID_OPTIONS'
  /** There are no binaries for this operating system, processor or C library. */
  | 'UNSUPPORTED_PLATFORM'
  /** The optional dependency with the binaries was not installed. */
  | 'BINARIES_MISSING'
  /** The directory cannot be made, read or written to by this user. */
  | 'DIRECTORY_NOT_WRITABLE'
  /** The directory has content that this package did not put there. */
  | 'DIRECTORY_NOT_OURS'
  /** Another container or machine runs the server of this directory, or a start or stop of it hangs. */
  | 'DIRECTORY_IN_USE'
  /** The data was written by another major version of Postgres. */
  | 'DATA_VERSION_MISMATCH'
  /** There is no space for a new cluster, or for the server to go on. */
  | 'DISK_FULL'
  /** Anything else that kept the server from starting; the message ends with what the server wrote. */
  | 'START_FAILED'
  /** The server did not end. */
  | 'STOP_FAILED'

/**
 * Every error that this package throws: `code` to branch on, a message that says what happened and what to do, and the
 * error beneath as `cause` where there is one.
 *
 * @example
 * try {
 *   await startEmbeddedPostgres({ directory: '.data/postgres' })
 * } catch (error) {
 *   if (error instanceof EmbeddedPostgresError && error.code === 'UNSUPPORTED_PLATFORM') {
 *     console.error('Set DATABASE_URL to a Postgres of your own.')
 *   }
 * }
 */
export class EmbeddedPostgresError extends Error {
  readonly code: EmbeddedPostgresErrorCode

  constructor(code: EmbeddedPostgresErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'EmbeddedPostgresError'
    this.code = code
  }
}

/** Whether the error is a system error with one of these codes, such as `ENOENT`. */
export function hasCode(error: unknown, ...codes: string[]): boolean {
  return codes.includes(systemErrorCode(error) ?? '')
}

/** For `.catch`: an outcome that is as good as success, such as `ENOENT` for a file that may be missing. */
export function ignoreCode(...codes: string[]): (error: unknown) => undefined {
  return (error) => {
    if (!hasCode(error, ...codes)) throw error
  }
}

export function systemErrorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined
}

/** The error for the caller, when something failed on the way to a running (or stopped) server. */
export function explain(
  cause: unknown,
  directory: string,
  otherwise: 'START_FAILED' | 'STOP_FAILED',
): EmbeddedPostgresError {
  if (cause instanceof EmbeddedPostgresError) return cause
  const reason = cause instanceof Error ? cause.message : String(cause)
  if (hasCode(cause, 'ENOSPC', 'EDQUOT')) return diskFull(directory, reason, cause)
  const unmakeable = hasCode(cause, 'ENOENT') && (cause as NodeJS.ErrnoException).syscall === 'mkdir'
  if (
    unmakeable ||
    hasCode(cause, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'EEXIST', 'ELOOP', 'ENAMETOOLONG')
  ) {
    const message = `The directory ${directory} cannot be used by user id ${process.geteuid?.()}: ${reason}. Choose one that this user owns; one that was used as another user belongs to that user.`
    return new EmbeddedPostgresError('DIRECTORY_NOT_WRITABLE', message, { cause })
  }
  const verb = otherwise === 'START_FAILED' ? 'started' : 'stopped'
  const message = `The Postgres in ${directory} could not be ${verb}: ${reason}. Its log is server.log in that directory.`
  return new EmbeddedPostgresError(otherwise, message, { cause })
}

export function diskFull(directory: string, words: string, cause?: unknown): EmbeddedPostgresError {
  const message = `The disk that holds ${directory} is full. Free some space (a new cluster takes about 40 MB) and start again, or choose another directory; nothing was lost.\n${words}`
  return new EmbeddedPostgresError('DISK_FULL', message, cause === undefined ? {} : { cause })
}
