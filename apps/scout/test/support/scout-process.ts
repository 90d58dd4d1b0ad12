import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { WhenFinished } from './temporary-folder.ts'

/** The program's file. */
export const LAUNCHER = path.join(import.meta.dirname, '../../scout.mjs')

export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
  readonly errors: string
}

/** Scout as a child process, in a process group of its own. */
export interface ScoutProcess {
  readonly pid: number
  /** What it has said so far, on both streams in the order in which it came. */
  readonly said: string
  /** How it ended; rejects when it takes longer than a minute. */
  readonly ended: Promise<Ending>
  readonly running: boolean
  /** Waits until what it said matches; rejects when it ends without. */
  says(pattern: RegExp): Promise<void>
  /** Sends a signal to its process group, as a terminal does; false when it has ended. */
  signal(signal: NodeJS.Signals): boolean
  /** SIGKILL, and waits for its end. */
  kill(): Promise<void>
}

export interface ScoutOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly uid?: number
}

/** Runs the real program with nothing of this process's environment but what it needs. */
export function spawnScout(
  args: readonly string[],
  whenFinished: WhenFinished,
  { env = {}, uid }: ScoutOptions = {},
): ScoutProcess {
  const { PATH = '', HOME = '', TMPDIR = '/tmp' } = process.env
  const child = spawn(process.execPath, [LAUNCHER, ...args], {
    env: { PATH, HOME, TMPDIR, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  })
  const scout = new RunningScout(child)
  whenFinished(() => scout.kill())
  return scout
}

const LONGEST_RUN_MS = 60_000

class RunningScout implements ScoutProcess {
  readonly pid: number
  readonly ended: Promise<Ending>
  said = ''
  running = true
  readonly #child: ChildProcess
  #changed = Promise.withResolvers<void>()

  constructor(child: ChildProcess) {
    this.#child = child
    this.pid = child.pid!
    const texts = { output: '', errors: '' }
    for (const [name, stream] of [
      ['output', child.stdout],
      ['errors', child.stderr],
    ] as const) {
      stream!.setEncoding('utf8').on('data', (text: string) => {
        texts[name] += text
        this.said += text
        this.#change()
      })
    }
    const closed = once(child, 'close').then(([code, signal]) => {
      this.running = false
      this.#change()
      return { code, signal, ...texts } as Ending
    })
    this.ended = Promise.race([closed, this.#tooLong(closed)])
    this.ended.catch(() => {})
  }

  async says(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.said)) {
      if (!this.running) throw new Error(`Scout ended without saying ${pattern}. It said:\n${this.said}`)
      await this.#changed.promise
    }
  }

  signal(signal: NodeJS.Signals): boolean {
    if (!this.running) return false
    process.kill(-this.pid, signal)
    return true
  }

  async kill(): Promise<void> {
    if (this.running) this.#child.kill('SIGKILL')
    await this.ended
  }

  #change(): void {
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  #tooLong(closed: Promise<unknown>): Promise<never> {
    return new Promise((_, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`Scout still runs after ${LONGEST_RUN_MS / 1_000} s. It said:\n${this.said}`))
      }, LONGEST_RUN_MS)
      void closed.then(() => clearTimeout(timer))
    })
  }
}
