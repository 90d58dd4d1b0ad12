import type { ChildProcess } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Account } from './account.ts'
import type { Binaries } from './binaries.ts'
import { diskFull, EmbeddedPostgresError, hasCode } from './errors.ts'
import type { Layout } from './layout.ts'
import { commandLineOf, pidIsAlive } from './process-identity.ts'
import { openLog, readLogFrom } from './server-log.ts'
import { dataFolderFor, startProgram } from './server-program.ts'

const POLL_MILLISECONDS = 10
// Replaying the log after a crash can take long, and giving up would only make the next start begin again.
const START_MILLISECONDS = 120_000
// Until the last process of a killed server has ended: 1-2 s, or as long as its longest query.
const SURVIVORS_MILLISECONDS = 30_000
const FAST_STOP_MILLISECONDS = 60_000
const IMMEDIATE_STOP_MILLISECONDS = 15_000
const PORT_ATTEMPTS = 20
/** Above every pid that Linux and macOS hand out. */
const NOBODYS_PID = 2_147_483_647

/** The server that runs on the data of a directory, as its `postmaster.pid` describes it. */
export interface Postmaster {
  pid: number
  port: number
  status: string
}

export interface StartOptions {
  layout: Layout
  binaries: Binaries
  account: Account
  settings: Record<string, string>
  /** Called again when the port it gave was taken before the server had it. */
  choosePort: () => Promise<number>
}

/** The running server; not another program that was given its pid after it had died. */
export function findPostmaster(layout: Layout): Postmaster | undefined {
  const lines = readPidFile(layout)
  const pid = Number(lines?.[0])
  if (lines === undefined || !isPostmasterOf(layout, pid)) return undefined
  return { pid, port: Number(lines[3]), status: lines[7]?.trim() ?? '' }
}

/** The server in a lasting state: ready, or none. One that is stopping is helped along. */
export async function settledPostmaster(layout: Layout): Promise<Postmaster | undefined> {
  const deadline = Date.now() + START_MILLISECONDS
  for (;;) {
    const found = findPostmaster(layout)
    if (found === undefined || found.status === 'ready') return found
    if (found.status === 'stopping') await stopPostmaster(layout)
    else if (Date.now() > deadline) throw neverReady(layout)
    else await delay(POLL_MILLISECONDS)
  }
}

/** Starts the server and returns it when it accepts connections. */
export async function startPostmaster(options: StartOptions): Promise<Postmaster> {
  const { layout, account } = options
  const deadline = Date.now() + SURVIVORS_MILLISECONDS
  for (let portsTried = 0; ; ) {
    const running = await settledPostmaster(layout)
    if (running !== undefined) return running
    await disownReusedPid(layout, account)
    const outcome = await launch(options)
    if ('pid' in outcome) return outcome
    if (isPortTaken(outcome.log) && ++portsTried < PORT_ATTEMPTS) continue
    if (!hasSurvivors(outcome.log) || Date.now() > deadline) throw startFailed(layout, outcome.log)
    await delay(POLL_MILLISECONDS * 10)
  }
}

/** Rolls open transactions back, writes a checkpoint and waits for the end. Without a server it does nothing. */
export async function stopPostmaster(layout: Layout): Promise<void> {
  const running = findPostmaster(layout)
  if (running === undefined) return
  if (await endsAfter('SIGINT', FAST_STOP_MILLISECONDS, layout, running.pid)) return
  // Loses nothing either: the next start replays the log.
  if (await endsAfter('SIGQUIT', IMMEDIATE_STOP_MILLISECONDS, layout, running.pid)) return
  const message = `The Postgres with pid ${running.pid} in ${layout.directory} does not end. End it with "kill -QUIT ${running.pid}"; ${layout.log} may say why.`
  throw new EmbeddedPostgresError('STOP_FAILED', message)
}

function readPidFile(layout: Layout): string[] | undefined {
  try {
    return readFileSync(layout.postmasterPid, 'utf8').split('\n')
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

function isPostmasterOf(layout: Layout, pid: number): boolean {
  if (!pidIsAlive(pid)) return false
  const command = commandLineOf(pid)
  if (process.platform !== 'linux') return command[0]?.includes(`/bin/postgres -D ${layout.data} `) ?? false
  // A backend calls itself "postgres: walwriter", which is another first word.
  return (
    basename(command[0] ?? '') === 'postgres' && (worksIn(pid, layout.data) ?? command.includes(layout.data))
  )
}

/** Undefined when this process may not know. */
function worksIn(pid: number, folder: string): boolean | undefined {
  try {
    const [current, expected] = [statSync(`/proc/${pid}/cwd`), statSync(folder)]
    return current.dev === expected.dev && current.ino === expected.ino
  } catch {
    return undefined
  }
}

/**
 * Postgres takes any living process with the pid in `postmaster.pid` for a server, and then refuses to start for ever. Only
 * the pid is replaced: by the line about shared memory Postgres notices the survivors of a killed server.
 */
async function disownReusedPid(layout: Layout, account: Account): Promise<void> {
  const lines = readPidFile(layout)
  if (lines === undefined) return
  if (lines.join('').trim() === '') return removeEmptyPidFile(layout)
  const corrected = `${layout.postmasterPid}.corrected`
  await writeFile(corrected, [NOBODYS_PID, ...lines.slice(1)].join('\n'), { mode: 0o600 })
  await account.give(corrected)
  await rename(corrected, layout.postmasterPid)
}

/** Left by a power cut or a full disk; or just made by a server whose starter was killed, which fills it at once. */
async function removeEmptyPidFile(layout: Layout): Promise<void> {
  const { mtimeMs } = await stat(layout.postmasterPid)
  if (Date.now() - mtimeMs > 5000) await rm(layout.postmasterPid)
}

/** One attempt: the server, or what it wrote before it gave up. */
async function launch(options: StartOptions): Promise<Postmaster | { log: string }> {
  const { layout, binaries, account, settings } = options
  const port = await options.choosePort()
  const log = await openLog(layout, account)
  try {
    const { size } = await log.stat()
    const child = await startProgram({
      program: binaries.postgres,
      arguments: serverArguments(dataFolderFor(account, layout.data), port, settings),
      data: layout.data,
      account,
      stdio: ['ignore', log.fd, log.fd],
    })
    child.unref()
    return (await readyOrEnded(layout, child)) ?? { log: await readLogFrom(layout, size) }
  } finally {
    await log.close()
  }
}

function serverArguments(data: string, port: number, settings: Record<string, string>): string[] {
  const decided = { listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '' }
  const all = Object.entries({ ...settings, ...decided })
  return ['-D', data, ...all.flatMap(([name, value]) => ['-c', `${name}=${value}`])]
}

async function readyOrEnded(layout: Layout, child: ChildProcess): Promise<Postmaster | undefined> {
  const deadline = Date.now() + START_MILLISECONDS
  while (child.exitCode === null && child.signalCode === null) {
    const found = findPostmaster(layout)
    if (found?.pid === child.pid && found?.status === 'ready') return found
    if (Date.now() > deadline) {
      child.kill('SIGQUIT')
      throw neverReady(layout)
    }
    await delay(POLL_MILLISECONDS)
  }
  return undefined
}

async function endsAfter(
  signal: NodeJS.Signals,
  milliseconds: number,
  layout: Layout,
  pid: number,
): Promise<boolean> {
  const deadline = Date.now() + milliseconds
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (!hasCode(error, 'ESRCH')) throw error
  }
  while (isPostmasterOf(layout, pid)) {
    if (Date.now() > deadline) return false
    await delay(POLL_MILLISECONDS)
  }
  return true
}

function isPortTaken(log: string): boolean {
  return /could not bind .*: Address already in use/.test(log)
}

function hasSurvivors(log: string): boolean {
  return /pre-existing shared memory block .* is still in use|lock file ".*" (already exists|is empty)/.test(
    log,
  )
}

function neverReady(layout: Layout): EmbeddedPostgresError {
  const message = `The Postgres in ${layout.directory} was not ready after ${START_MILLISECONDS / 1000} s. Read ${layout.log} for the reason.`
  return new EmbeddedPostgresError('START_FAILED', message)
}

function startFailed(layout: Layout, log: string): EmbeddedPostgresError {
  const words = log.split('\n').slice(-15).join('\n')
  if (log.includes('No space left on device')) return diskFull(layout.directory, words)
  const message = `The Postgres in ${layout.directory} did not start. Correct what its last words name (a setting?), or choose another directory; the whole log is ${layout.log}.\n${words}`
  return new EmbeddedPostgresError('START_FAILED', message)
}
