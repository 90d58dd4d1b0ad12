import { statSync } from 'node:fs'
import { chown } from 'node:fs/promises'
import { dirname } from 'node:path'

const NOBODY = process.platform === 'darwin' ? 4_294_967_294 : 65_534

/** Whom the server runs as, and who therefore owns everything in the directory. */
export interface Account {
  /** Set when this process is root: Postgres refuses to run as root. */
  drop: { uid: number; gid: number } | undefined
  /** Hands over a file or folder that this process made. Does nothing unless this process is root. */
  give(path: string): Promise<void>
  /** Whether the account can get into a folder: those above it may be closed to everybody but root. */
  reaches(folder: string): boolean
}

/**
 * As root, the server runs as the owner of the directory (or of the nearest folder above it that exists), so that `sudo`
 * in somebody's project leaves files that this person can use afterwards; and as `nobody` where that is root.
 */
export function accountFor(directory: string): Account {
  if (process.geteuid?.() !== 0) return { drop: undefined, give: async () => {}, reaches: () => true }
  const { uid, gid } = nearestStat(directory)
  const drop = uid === 0 ? { uid: NOBODY, gid: NOBODY } : { uid, gid }
  return {
    drop,
    give: (path) => chown(path, drop.uid, drop.gid),
    reaches: (folder) => everyFolderAllows(folder, drop),
  }
}

function nearestStat(path: string): { uid: number; gid: number } {
  return statSync(path, { throwIfNoEntry: false }) ?? nearestStat(dirname(path))
}

function everyFolderAllows(folder: string, account: { uid: number; gid: number }): boolean {
  const { mode, uid, gid } = statSync(folder)
  const shift = uid === account.uid ? 6 : gid === account.gid ? 3 : 0
  const allows = ((mode >> shift) & 0o1) === 1
  return allows && (dirname(folder) === folder || everyFolderAllows(dirname(folder), account))
}
