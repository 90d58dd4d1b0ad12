import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import type { Writable } from 'node:stream'
import { TriphaseError } from 'triphase'

/**
 * Has `write` fill a file beside the target, which takes the target's place when it is complete and on the disk. Whatever
 * fails or is killed, there is the old file or the new one; a kill may leave `.NAME.….partial` beside it.
 *
 * @throws {TriphaseError} `FILE_UNWRITABLE`
 */
export async function writeWhole<Value>(
  target: string,
  write: (stream: Writable) => Promise<Value>,
): Promise<Value> {
  const there = await stat(target).catch(() => null)
  // A device or a pipe is no place to be taken: that would put a file where /dev/stdout was.
  if (there && !there.isFile())
    throw unwritable(target, there.isDirectory() ? 'it is a folder' : 'it is no file')
  const partial = path.join(
    path.dirname(target),
    `.${path.basename(target).slice(0, 200)}.${randomBytes(4).toString('hex')}.partial`,
  )
  // On the disk before it is closed.
  const stream = createWriteStream(partial, { flags: 'wx', flush: true })
  await once(stream, 'open').catch((error: unknown) => {
    throw unwritable(target, codeOf(error), error)
  })
  const closed = once(stream, 'close')
  closed.catch(() => {})
  try {
    const value = await write(stream)
    await closed
    await rename(partial, target)
    return value
  } catch (error) {
    stream.destroy()
    await rm(partial, { force: true })
    throw FAILURES.test(codeOf(error)) ? unwritable(target, codeOf(error), error) : error
  }
}

/** Of the disk and its rights; what the database answers with has codes of its own. */
const FAILURES = /^(ENOSPC|EDQUOT|EIO|EFBIG|EACCES|EPERM|EROFS|EBUSY|EXDEV)$/

function unwritable(target: string, reason: string, cause?: unknown): TriphaseError {
  return new TriphaseError(
    'FILE_UNWRITABLE',
    reason === 'ENOSPC' || reason === 'EDQUOT'
      ? `${target} cannot be written: the disk is full. Free space, or give another place.`
      : `${target} cannot be written (${reason}). Give another place, or this user the right to write there.`,
    { cause },
  )
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
}
