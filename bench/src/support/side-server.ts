import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { findProgram, type Program } from './installed.ts'
import { processCpuSeconds } from './process-times.ts'

const NOBODY = 65_534
const START_MS = 10_000

export interface PgBouncerOptions {
  /** Besides its own. */
  settings?: Readonly<Record<string, string | number>>
  /** Another name for the database: one with server connections of its own. */
  alias?: string
  /** Roles that may log in besides the one of the URL, with their passwords. */
  users?: Readonly<Record<string, string>>
}

/** A server besides Postgres: in a temporary folder, on a socket in there, for one measurement. */
export class SideServer {
  /** Redis: the path of its socket. PgBouncer: a postgres URL. */
  readonly url: string
  readonly #process: ChildProcess
  readonly #folder: string

  private constructor(process: ChildProcess, folder: string, url: string) {
    this.#process = process
    this.#folder = folder
    this.url = url
  }

  /** Redis with an append-only file that is flushed every second, and no snapshots. */
  static async redis(): Promise<SideServer> {
    const folder = await newFolder()
    const socket = join(folder, 'redis.sock')
    const options = {
      port: 0,
      unixsocket: socket,
      dir: folder,
      save: '',
      appendonly: 'yes',
      appendfsync: 'everysec',
    }
    const words = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
    return SideServer.#start('redis-server', words, folder, { socket, url: socket })
  }

  /** PgBouncer in transaction mode before the database of a URL; otherwise as it comes, or as it is told to be. */
  static async pgBouncer(
    target: string,
    { settings: own, alias, users }: PgBouncerOptions = {},
  ): Promise<SideServer> {
    const folder = await newFolder()
    const { hostname, port, username, password, pathname } = new URL(target)
    const user = decodeURIComponent(username)
    const settings = [
      '[databases]',
      ...(alias ? [`${alias} = host=${hostname} port=${port} dbname=${pathname.slice(1)}`] : []),
      `* = host=${hostname} port=${port}`,
      '[pgbouncer]',
      'pool_mode = transaction',
      `unix_socket_dir = ${folder}`,
      // Names the socket; nothing listens on a port.
      'listen_port = 6432',
      'auth_type = trust',
      `auth_file = ${join(folder, 'users')}`,
      'max_client_conn = 500',
      ...Object.entries(own ?? {}).map(([name, value]) => `${name} = ${value}`),
    ]
    await writeFile(join(folder, 'pgbouncer.ini'), `${settings.join('\n')}\n`)
    const all = Object.entries({ [user]: decodeURIComponent(password), ...users })
    await writeFile(join(folder, 'users'), all.map(([name, secret]) => `"${name}" "${secret}"\n`).join(''))
    const url = `postgres://${username}@localhost${pathname}?host=${folder}&port=6432`
    const socket = join(folder, '.s.PGSQL.6432')
    return SideServer.#start('pgbouncer', ['-q', join(folder, 'pgbouncer.ini')], folder, { socket, url })
  }

  static async #start(
    program: Program,
    words: string[],
    folder: string,
    { socket, url }: { socket: string; url: string },
  ): Promise<SideServer> {
    const path = findProgram(program)
    if (!path) throw new Error(`${program} is not installed`)
    const drop = process.geteuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
    const child = spawn(path, words, { cwd: folder, stdio: 'ignore', ...drop })
    const end = () => {
      child.kill('SIGKILL')
      rmSync(folder, { recursive: true, force: true })
    }
    process.once('exit', end)
    child.once('exit', () => process.off('exit', end))
    child.once('error', () => {})
    const server = new SideServer(child, folder, url)
    try {
      await answering(socket, child)
      return server
    } catch (cause) {
      await server.stop()
      throw new Error(`${program} does not start`, { cause })
    }
  }

  cpuSeconds(): number {
    return processCpuSeconds(this.#process.pid as number)
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null && this.#process.pid) {
      const ended = once(this.#process, 'exit')
      this.#process.kill('SIGKILL')
      await ended
    }
    await rm(this.#folder, { recursive: true, force: true })
  }
}

async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bench-'))
  if (process.geteuid?.() === 0) await chown(folder, NOBODY, NOBODY)
  else await chmod(folder, 0o700)
  return folder
}

async function answering(socket: string, child: ChildProcess): Promise<void> {
  const until = Date.now() + START_MS
  for (;;) {
    const answers = await new Promise<boolean>((resolve) => {
      const attempt = connect(socket)
      attempt.once('connect', () => resolve(attempt.destroy() !== undefined))
      attempt.once('error', () => resolve(false))
    })
    if (answers) return
    if (child.exitCode !== null || Date.now() > until)
      throw new Error(`no answer, exit code ${child.exitCode}`)
    await delay(10)
  }
}
