import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'

/** The program's file. */
const PROGRAM = path.join(import.meta.dirname, '../../src/triphase.ts')

const LONGEST_RUN_MS = 50_000

export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface CliOptions {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
  /** Another program that starts it: a shell, a terminal. It finds the command in `$TRIPHASE`. */
  readonly through?: readonly string[]
}

/** The real program as a child process, in a process group of its own. */
export class CliProcess {
  readonly pid: number
  /** How it ended; rejects when it takes longer than 50 s. */
  readonly ended: Promise<Ending>
  stdout = ''
  stderr = ''
  running = true
  readonly #child: ChildProcess
  #changed = Promise.withResolvers<void>()

  constructor(args: readonly string[], { cwd, env = {}, through }: CliOptions) {
    const command = [process.execPath, '--conditions=triphase-source', PROGRAM, ...args]
    const [program = '', ...rest] = through ?? command
    const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env
    this.#child = spawn(program, rest, {
      cwd,
      env: { PATH, HOME, TMPDIR, ...env, TRIPHASE: command.map((word) => `'${word}'`).join(' ') },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    this.pid = this.#child.pid as number
    for (const name of ['stdout', 'stderr'] as const) {
      this.#child[name]?.setEncoding('utf8').on('data', (text: string) => {
        this[name] += text
        this.#change()
      })
    }
    this.ended = this.#end()
    this.ended.catch(() => {})
  }

  /** Waits until what it said, on either stream, matches; rejects when it ends without. */
  async says(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.stdout) && !pattern.test(this.stderr)) {
      if (!this.running) throw new Error(`It ended without saying ${pattern}:\n${this.stdout}${this.stderr}`)
      await this.#changed.promise
    }
  }

  /** Sends a signal to its process group, as a terminal does; false when it has ended. */
  signal(signal: NodeJS.Signals): boolean {
    if (!this.running) return false
    process.kill(-this.pid, signal)
    return true
  }

  /** Nobody reads its output any more. */
  closeOutput(): void {
    this.#child.stdout?.destroy()
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.ended
  }

  async #end(): Promise<Ending> {
    const late = setTimeout(() => this.signal('SIGKILL'), LONGEST_RUN_MS)
    const [code, signal] = await once(this.#child, 'close')
    clearTimeout(late)
    this.running = false
    this.#change()
    return { code, signal, stdout: this.stdout, stderr: this.stderr }
  }

  #change(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }
}
