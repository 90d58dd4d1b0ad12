import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'

const NOBODY = 65_534
const SYSTEM_FOLDERS = ['/usr/sbin', '/usr/local/sbin', '/usr/bin', '/usr/local/bin', '/opt/homebrew/bin']

/** Where a program of the system is; null when it is not installed. */
export function findProgram(name: string): string | null {
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...SYSTEM_FOLDERS]
  return folders.map((folder) => join(folder, name)).find(isExecutable) ?? null
}

/**
 * Why tests that need a program are skipped here; undefined when it is installed.
 *
 * @throws when it is not, and TRIPHASE_TEST_SERVERS says that it has to be.
 */
export function reasonToSkip(program: string | null, reason: string): string | undefined {
  if (program) return undefined
  if (process.env.TRIPHASE_TEST_SERVERS === 'required') throw new Error(`${reason}, and has to be here`)
  return reason
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** A port that was free a moment ago, chosen by the system. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/**
 * A server of the system's, run from a folder of its own; as `nobody` where this process is root, which servers refuse
 * to be. It ends with this process at the latest.
 */
export class ServerProgram {
  readonly folder: string
  readonly #command: readonly string[]
  readonly #isUp: RegExp
  #child: ChildProcess | undefined
  /** What it has printed since its last start. */
  output = ''

  /** @param isUp what it prints when it takes connections. */
  constructor(folder: string, command: readonly string[], isUp: RegExp) {
    this.folder = folder
    this.#command = command
    this.#isUp = isUp
  }

  static async folder(name: string): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), `triphase-${name}-`))
    await chmod(folder, 0o755)
    await ServerProgram.give(folder)
    return folder
  }

  /** Hands a file or folder over to whom servers run as. */
  static async give(path: string): Promise<void> {
    if (isRoot()) await chown(path, NOBODY, NOBODY)
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  async write(name: string, text: string): Promise<string> {
    const path = join(this.folder, name)
    await writeFile(path, text, { mode: 0o600 })
    await ServerProgram.give(path)
    return path
  }

  /** Resolves when it takes connections; rejects with what it printed when it ends instead. */
  async start(): Promise<void> {
    const [program, ...args] = this.#command as [string, ...string[]]
    const account = isRoot() ? { uid: NOBODY, gid: NOBODY } : {}
    this.output = ''
    const child = spawn(program, args, { cwd: '/', stdio: ['ignore', 'pipe', 'pipe'], ...account })
    this.#child = child
    const kill = () => child.kill('SIGKILL')
    process.once('exit', kill)
    child.once('exit', () => process.off('exit', kill))
    await new Promise<void>((resolve, reject) => {
      const hear = (text: string) => {
        this.output += text
        if (this.#isUp.test(this.output)) resolve()
      }
      for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', hear)
      child.once('error', reject)
      child.once('close', () => reject(new Error(`${program} ended:\n${this.output}`)))
    })
  }

  /** Ends it with a signal, and waits for its end. */
  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child
    this.#child = undefined
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill(signal)
    await ended
  }

  async dispose(): Promise<void> {
    await this.end('SIGKILL')
    await rm(this.folder, { recursive: true, force: true })
  }
}

function isRoot(): boolean {
  return process.geteuid?.() === 0
}
