import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Account } from './account.ts'
import { EmbeddedPostgresError, hasCode } from './errors.ts'
import type { Layout } from './layout.ts'
import { isAlive, type ProcessIdentity, pidOf } from './process-identity.ts'
import { unfinishedName } from './unfinished.ts'

// Longer than the longest start (recovery of a large cluster after a crash), which happens with the lock held.
const WAIT_MILLISECONDS = 150_000
const POLL_MILLISECONDS = 15

/**
 * Runs `work` while no other process, and no other call in this process, holds the directory's lock.
 *
 * The lock is the folder `lock`: held while there is a file in it (named after the holder), free while it is empty or
 * missing. It is taken by renaming a folder with one file onto it, which the kernel refuses unless it is free. The lock
 * of a dead holder is freed by deleting the file with that holder's name: a latecomer who came to the same conclusion
 * cannot hurt the next holder, whose file has another name. (Node has no `flock`, and a lock file that is deleted when
 * it looks stale has just that race.)
 */
export async function withDirectoryLock<T>(
  layout: Layout,
  account: Account,
  work: () => Promise<T>,
): Promise<T> {
  const prepared = unfinishedName(layout.lock)
  const name = basename(prepared).slice(basename(layout.lock).length + 1)
  await acquire(layout, account, prepared, name)
  try {
    return await work()
  } finally {
    await rm(join(layout.lock, name), { force: true })
  }
}

async function acquire(layout: Layout, account: Account, prepared: string, name: string): Promise<void> {
  const deadline = Date.now() + WAIT_MILLISECONDS
  try {
    await mkdir(prepared)
    await account.give(prepared)
    await writeFile(join(prepared, name), '')
    await account.give(join(prepared, name))
    while (!(await takeIfFree(prepared, layout.lock))) {
      const holder = await livingHolder(layout.lock)
      if (holder !== undefined && Date.now() > deadline) throw inUse(layout, holder)
      if (holder !== undefined) await delay(POLL_MILLISECONDS * (0.5 + Math.random()))
    }
  } catch (error) {
    await rm(prepared, { recursive: true, force: true })
    throw error
  }
}

async function takeIfFree(prepared: string, lock: string): Promise<boolean> {
  try {
    await rename(prepared, lock)
    return true
  } catch (error) {
    if (hasCode(error, 'ENOTEMPTY', 'EEXIST')) return false
    throw error
  }
}

async function livingHolder(lock: string): Promise<ProcessIdentity | undefined> {
  for (const name of await readdir(lock)) {
    const holder = name.slice(0, name.lastIndexOf('-'))
    if (isAlive(holder)) return holder
    await rm(join(lock, name), { force: true })
  }
  return undefined
}

function inUse(layout: Layout, holder: ProcessIdentity): EmbeddedPostgresError {
  const message = `Process ${pidOf(holder)} has been starting or stopping the Postgres in ${layout.directory} for more than ${WAIT_MILLISECONDS / 1000} s. Wait for it, or end that process if it hangs; ${layout.log} may say why.`
  return new EmbeddedPostgresError('DIRECTORY_IN_USE', message)
}
