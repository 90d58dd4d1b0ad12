import { randomUUID } from 'node:crypto'
import { access, type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { checkKey, type ObjectStore, ObjectStoreError, type ObjectStoreErrorCode } from '../object-store.ts'

const ABANDONED_MS = 3_600_000

/** An object store in a local folder, which is made when it is first needed. */
export function openFolderStore(folder: string): ObjectStore {
  const fileOf = (key: string): string => {
    checkKey(key)
    return path.join(folder, key)
  }
  const incoming = path.join(folder, 'incoming')
  let swept: Promise<void> | null = null
  return {
    description: `folder ${folder}`,
    async put(key, bytes, _contentType, signal) {
      const file = fileOf(key)
      signal?.throwIfAborted()
      // What failed may be mended by the next time.
      swept ??= removeAbandoned(incoming).catch((error: unknown) => {
        swept = null
        throw error
      })
      await swept.then(() => writeWhole(incoming, file, bytes)).catch((error) => fail('write', file, error))
    },
    async get(key, signal) {
      const file = fileOf(key)
      const options = signal ? { signal } : {}
      return await readFile(file, options).catch((error) => {
        signal?.throwIfAborted()
        return fail('read', file, error)
      })
    },
    async exists(key, signal) {
      const file = fileOf(key)
      signal?.throwIfAborted()
      return await access(file).then(
        () => true,
        (error) => (errnoOf(error) === 'ENOENT' ? false : fail('look for', file, error)),
      )
    },
    close() {},
  }
}

/**
 * A reader sees the whole object or none: the bytes go to a file of another name and are forced to the disk before it
 * gets its own. Then the folders that have changed are forced too, since the row that refers to the object will be.
 */
async function writeWhole(incoming: string, file: string, bytes: Uint8Array): Promise<void> {
  const home = path.dirname(file)
  const made = await makeFolder(home)
  await makeFolder(incoming)
  const temporary = path.join(incoming, randomUUID())
  try {
    await useFile(temporary, 'wx', async (handle) => {
      await handle.writeFile(bytes)
      await handle.sync()
    })
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  const highest = path.dirname(made ?? file)
  for (let changed = home; changed.length >= highest.length; changed = path.dirname(changed)) {
    await useFile(changed, 'r', (handle) => handle.sync())
  }
}

/**
 * With all folders above it. Node's own way takes a read-only disk for a missing folder, and below /proc it never ends.
 *
 * @returns the highest one that was made.
 */
async function makeFolder(folder: string): Promise<string | undefined> {
  try {
    await mkdir(folder)
    return folder
  } catch (error) {
    if (errnoOf(error) === 'EEXIST' && (await stat(folder)).isDirectory()) return undefined
    if (errnoOf(error) !== 'ENOENT' || path.dirname(folder) === folder) throw error
    const above = await makeFolder(path.dirname(folder))
    await mkdir(folder).catch((again: unknown) => {
      if (errnoOf(again) !== 'EEXIST') throw again
    })
    return above ?? folder
  }
}

/** A process that is killed while it writes leaves its file behind; no write takes an hour. */
async function removeAbandoned(incoming: string): Promise<void> {
  await makeFolder(incoming)
  for (const name of await readdir(incoming)) {
    const file = path.join(incoming, name)
    const facts = await stat(file).catch(() => null)
    if (facts && facts.mtimeMs < Date.now() - ABANDONED_MS) await rm(file, { force: true })
  }
}

async function useFile(
  file: string,
  flags: string,
  use: (handle: FileHandle) => Promise<void>,
): Promise<void> {
  const handle = await open(file, flags)
  try {
    await use(handle)
  } finally {
    await handle.close()
  }
}

const CAUSES: Record<string, readonly [ObjectStoreErrorCode, string]> = {
  ENOENT: [
    'OBJECT_MISSING',
    'it does not exist. It was deleted after it had been stored; store the image again.',
  ],
  ENOSPC: ['STORE_FULL', 'the disk is full. Free some space, or point SCOUT_DATA to a larger disk.'],
  EDQUOT: ['STORE_FULL', 'the disk quota is used up. Free some space, or point SCOUT_DATA to another disk.'],
  EACCES: [
    'STORE_DENIED',
    'permission denied. Give this user access, or point SCOUT_DATA to a folder of its own.',
  ],
  EPERM: [
    'STORE_DENIED',
    'not permitted. Give this user access, or point SCOUT_DATA to a folder of its own.',
  ],
  EROFS: ['STORE_DENIED', 'the disk is read-only. Point SCOUT_DATA to a folder that can be written.'],
  EEXIST: ['STORE_DENIED', 'a part of its path is a file. Point SCOUT_DATA to a folder.'],
  ENOTDIR: ['STORE_DENIED', 'a part of its path is a file. Point SCOUT_DATA to a folder.'],
}

function fail(verb: string, file: string, error: unknown): never {
  const errno = errnoOf(error)
  // A folder that vanishes while an object is being written is not an object that is missing.
  const known = verb === 'write' && errno === 'ENOENT' ? undefined : CAUSES[errno]
  const [code, reason] = known ?? [
    'STORE_UNAVAILABLE',
    `${errno || String(error)}. Try again; if it stays, check the disk.`,
  ]
  throw new ObjectStoreError(code, `Could not ${verb} ${file}: ${reason}`, { cause: error })
}

function errnoOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}
