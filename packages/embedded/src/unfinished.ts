import { randomBytes } from 'node:crypto'
import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ignoreCode } from './errors.ts'
import { isAlive, ownIdentity } from './process-identity.ts'

/**
 * A name next to `path` for something that will be renamed to `path` when it is whole. It tells who makes it, so that
 * {@link removeUnfinished} can tell what was abandoned.
 */
export function unfinishedName(path: string): string {
  return `${path}.${ownIdentity()}-${randomBytes(6).toString('hex')}`
}

/** Removes what killed processes of this user left under such names. */
export async function removeUnfinished(folder: string, prefix = ''): Promise<void> {
  for (const entry of await readdir(folder)) {
    const maker = /\.(\d+-[^-]+)-[0-9a-f]{12}(?:\.previous)?$/.exec(entry)?.[1]
    if (maker === undefined || !entry.startsWith(prefix) || isAlive(maker)) continue
    const path = join(folder, entry)
    // In a folder for everybody, a tree that somebody else can change must not be deleted as root.
    const isOwn = process.geteuid?.() !== 0 || prefix === '' || (await ownerOf(path)) === 0
    // The initdb of a killed starter may still be writing, until it finds its folder gone.
    if (isOwn) await rm(path, { recursive: true, force: true, maxRetries: 5 })
  }
}

async function ownerOf(path: string): Promise<number | undefined> {
  return (await lstat(path).catch(ignoreCode('ENOENT')))?.uid
}
