import { chmod, chown, mkdir, readdir, realpath, stat, writeFile } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import type { Account } from './account.ts'
import { EmbeddedPostgresError, hasCode, ignoreCode } from './errors.ts'
import type { Layout } from './layout.ts'
import { removeUnfinished } from './unfinished.ts'

const MARKER = {
  about:
    'A PostgreSQL server for trying things out, run by the npm package @triphase/embedded. ' +
    'While no program uses it, this folder can be deleted as a whole; the data goes with it.',
  format: 1,
}

/** Makes the directory when it is missing and returns its one true path, whichever way the caller wrote it. */
export async function makeDirectory(directory: string, account: Account): Promise<string> {
  await makeParents(dirname(directory), account)
  const made = await mkdir(directory, { mode: 0o700 }).then(() => true, ignoreCode('EEXIST'))
  if (made) await account.give(directory)
  return realpath(directory)
}

/** As root, new folders above the directory belong to whoever owns the folder in which they are made. */
async function makeParents(parent: string, account: Account): Promise<void> {
  const first = await makeFolder(parent)
  if (first === undefined || account.drop === undefined) return
  const { uid, gid } = await stat(dirname(first))
  for (let made = parent; made.length >= first.length; made = dirname(made)) await chown(made, uid, gid)
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
    if (hasCode(error, 'EEXIST')) return undefined
    if (!hasCode(error, 'ENOENT') || dirname(folder) === folder) throw error
    const above = await makeFolder(dirname(folder))
    const made = await mkdir(folder).then(() => true, ignoreCode('EEXIST'))
    return above ?? (made ? folder : undefined)
  }
}

/** Before the lock is taken, which would already be a file in somebody else's folder. */
export async function assertOurs(layout: Layout): Promise<void> {
  const entries = await readdir(layout.directory)
  if (entries.includes(basename(layout.marker))) return
  const foreign = entries.filter((entry) => !/^(lock(\..*)?|\.DS_Store|lost\+found)$/.test(entry))
  if (foreign.length === 0) return
  throw new EmbeddedPostgresError(
    'DIRECTORY_NOT_OURS',
    `The directory ${layout.directory} has content that is not an embedded Postgres (${foreign.slice(0, 3).join(', ')}). ` +
      'Nothing in it was touched; choose an empty directory, or one that does not exist yet.',
  )
}

/** Called with the lock held: marks a new directory as ours, and removes what killed processes left unfinished. */
export async function claim(layout: Layout, account: Account): Promise<void> {
  const entries = await readdir(layout.directory)
  if (!entries.includes(basename(layout.marker))) {
    await closeToOthers(layout, account)
    await writeFile(layout.marker, `${JSON.stringify(MARKER, null, 2)}\n`)
    await account.give(layout.marker)
  }
  await removeUnfinished(layout.directory)
}

async function closeToOthers(layout: Layout, account: Account): Promise<void> {
  await account.give(layout.directory)
  const { uid } = await stat(layout.directory)
  if (account.drop !== undefined || uid === process.geteuid?.()) await chmod(layout.directory, 0o700)
}
