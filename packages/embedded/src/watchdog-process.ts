import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Account } from './account.ts'
import { EmbeddedPostgresError, hasCode, ignoreCode } from './errors.ts'
import type { Layout } from './layout.ts'
import {
  identityOf,
  isAlive,
  isForeign,
  ownIdentity,
  type ProcessIdentity,
  pidOf,
} from './process-identity.ts'
import { openLog } from './server-log.ts'
import { removeUnfinished } from './unfinished.ts'

// Ten missed beats of a watchdog that beats every second, and what a start waits after a container was killed.
const SILENCE_MILLISECONDS = 10_000
const PROOF_OF_LIFE_BEATS = 3
const POLL_MILLISECONDS = 200

/**
 * Starts the process that stops the server when all its users were killed, unless it runs. Called with the lock held and
 * before the server is started: a server never runs unwatched.
 */
export async function ensureWatchdog(layout: Layout, account: Account): Promise<void> {
  const recorded = await recordedWatchdog(layout)
  if (recorded !== undefined && isAlive(recorded)) return
  const log = await openLog(layout, account)
  try {
    const pid = await spawnWatchdog(layout.directory, log.fd)
    await writeFile(layout.watchdog, identityOf(pid), { mode: 0o600 })
    await account.give(layout.watchdog)
  } finally {
    await log.close()
  }
}

async function spawnWatchdog(directory: string, log: number): Promise<number> {
  // The built package has this module and the watchdog in one folder, as the sources have.
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js'
  const script = fileURLToPath(new URL(`./watchdog.${extension}`, import.meta.url))
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script, directory], {
    cwd: '/',
    env: environmentForNode(),
    stdio: ['ignore', log, log],
    detached: true,
  })
  try {
    await once(child, 'spawn')
  } catch (cause) {
    const message = `${process.execPath} could not be started to watch over the server. Check that this program still exists, and start again.`
    throw new EmbeddedPostgresError('START_FAILED', message, { cause })
  }
  child.unref()
  return child.pid!
}

/** The caller's, but not NODE_OPTIONS with a debugger or a loader, nor other wishes of that kind. */
function environmentForNode(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('NODE_')))
}

/** Called with the lock held when the last user leaves: nothing touches the directory after its `stop()` returned. */
export async function endWatchdog(layout: Layout): Promise<void> {
  const watchdog = await recordedWatchdog(layout)
  if (watchdog !== undefined && isAlive(watchdog)) {
    // Outright: it has nothing to put in order, and may be waiting for the lock that is held here.
    const signalled = killIfAllowed(pidOf(watchdog))
    while (signalled && isAlive(watchdog)) await delay(2)
    // What it would have taken the lock with, where it was waiting for that.
    await removeUnfinished(layout.directory)
  }
  await forgetWatchdog(layout)
}

/** False for a watchdog that root started in this user's directory; with no server left to watch, it ends by itself. */
function killIfAllowed(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL')
  } catch (error) {
    if (hasCode(error, 'EPERM', 'ESRCH')) return false
    throw error
  }
}

export async function forgetWatchdog(layout: Layout): Promise<void> {
  await rm(layout.watchdog, { force: true })
}

/** Whether another watchdog has taken over, as when the directory was deleted and made anew. */
export async function isReplaced(layout: Layout): Promise<boolean> {
  const recorded = await recordedWatchdog(layout)
  return recorded !== undefined && recorded !== ownIdentity() && isAlive(recorded)
}

/** Shows that this watchdog lives to those who cannot see its process. */
export async function beat(layout: Layout): Promise<void> {
  const now = new Date()
  await utimes(layout.watchdog, now, now).catch(ignoreCode('ENOENT'))
}

/**
 * Two containers can share a folder while neither sees the other's processes, and Postgres' own check is blind there as
 * well: two servers on the same data would destroy it. The beat of the watchdog is what both can see.
 */
export async function assertNotUsedElsewhere(layout: Layout): Promise<void> {
  const seen = new Set<number>()
  while (seen.size <= PROOF_OF_LIFE_BEATS) {
    const watchdog = await recordedWatchdog(layout)
    if (watchdog === undefined || !isForeign(watchdog)) return
    const lastBeat = (await stat(layout.watchdog).catch(ignoreCode('ENOENT')))?.mtimeMs ?? 0
    if (Math.abs(Date.now() - lastBeat) > SILENCE_MILLISECONDS) return
    seen.add(lastBeat)
    await delay(POLL_MILLISECONDS)
  }
  throw usedElsewhere(layout)
}

async function recordedWatchdog(layout: Layout): Promise<ProcessIdentity | undefined> {
  return (await readFile(layout.watchdog, 'utf8').catch(ignoreCode('ENOENT'))) || undefined
}

function usedElsewhere(layout: Layout): EmbeddedPostgresError {
  const message = `The Postgres in ${layout.directory} is run by another container or machine that shares this folder. Stop it there first, or give each its own directory, or set DATABASE_URL to a Postgres that both can reach.`
  return new EmbeddedPostgresError('DIRECTORY_IN_USE', message)
}
