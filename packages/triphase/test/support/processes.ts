import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'

export interface WorkerOptions {
  /** Added to this process's own environment; `undefined` takes a variable out of it. */
  readonly env?: Readonly<Record<string, string | undefined>>
  readonly args?: readonly string[]
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface WorkerProcess {
  readonly pid: number
  /** What it has printed on stdout so far. */
  readonly lines: readonly string[]
  /** What it has printed on stderr so far. */
  readonly stderr: string
  readonly exited: Promise<Exit>
  /**
   * The first line that matches, of those already printed and those to come. Fails when the process has ended without
   * one, or after `deadlineMs` (10 s).
   */
  waitForLine(match: RegExp, deadlineMs?: number): Promise<RegExpMatchArray>
  /** SIGKILL unless another signal is given; false when it had already ended. */
  kill(signal?: NodeJS.Signals): boolean
  /** Kills it and waits for its end. */
  dispose(): Promise<void>
}

type Child = ChildProcessByStdio<null, Readable, Readable>

const running = new Set<Worker>()

process.on('exit', () => {
  for (const worker of running) worker.kill()
})

/**
 * Runs a .ts file as a process of its own, from the workspace's sources.
 *
 * @example
 * afterAll(killWorkers)
 * const worker = spawnWorker(new URL('./acks.worker.ts', import.meta.url), { env: { DATABASE_URL: url } })
 * await worker.waitForLine(/^ready/)
 * worker.kill('SIGKILL')
 * await worker.exited
 */
export function spawnWorker(script: URL, { env = {}, args = [] }: WorkerOptions = {}): WorkerProcess {
  const command = ['--conditions=triphase-source', fileURLToPath(script), ...args]
  const child = spawn(process.execPath, command, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const { pid } = child
  if (pid === undefined) {
    child.on('error', () => {})
    throw new Error(`No process could be started for ${fileURLToPath(script)}`)
  }
  return new Worker(child, pid)
}

/** Ends every process that spawnWorker started and that still runs; for `afterAll`. */
export async function killWorkers(): Promise<void> {
  await Promise.all([...running].map((worker) => worker.dispose()))
}

class Worker implements WorkerProcess {
  readonly pid: number
  readonly lines: string[] = []
  readonly exited: Promise<Exit>
  stderr = ''
  readonly #child: Child
  readonly #watchers = new Set<() => void>()
  #silent = false

  constructor(child: Child, pid: number) {
    this.#child = child
    this.pid = pid
    running.add(this)
    this.exited = new Promise((resolve) => {
      child.on('exit', (code, signal) => {
        running.delete(this)
        resolve({ code, signal })
      })
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    const lines = createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY })
    lines.on('line', (line) => {
      this.lines.push(line)
      this.#notify()
    })
    // Output may still arrive after the exit: only the end of the streams is the end of the lines.
    child.on('close', () => {
      this.#silent = true
      this.#notify()
    })
  }

  async waitForLine(match: RegExp, deadlineMs = 10_000): Promise<RegExpMatchArray> {
    const deadline = AbortSignal.timeout(deadlineMs)
    let seen = 0
    while (true) {
      for (; seen < this.lines.length; seen += 1) {
        const found = this.lines[seen]!.match(match)
        if (found) return found
      }
      if (this.#silent) throw this.#failure(`ended without a line that matches ${match}`)
      if (deadline.aborted) throw this.#failure(`printed no line that matches ${match} in ${deadlineMs} ms`)
      await this.#nextChange(deadline)
    }
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): boolean {
    return this.#child.kill(signal)
  }

  async dispose(): Promise<void> {
    this.kill()
    await this.exited
  }

  #nextChange(deadline: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        this.#watchers.delete(done)
        deadline.removeEventListener('abort', done)
        resolve()
      }
      this.#watchers.add(done)
      deadline.addEventListener('abort', done)
    })
  }

  #notify(): void {
    for (const watcher of [...this.#watchers]) watcher()
  }

  #failure(what: string): Error {
    const printed = [...this.lines.slice(-20), this.stderr.slice(-2000)].join('\n')
    const { exitCode, signalCode } = this.#child
    const end = exitCode ?? signalCode
    return new Error(`Process ${this.pid} ${what}${end === null ? '' : ` (${end})`}. It printed:\n${printed}`)
  }
}

export interface EventuallyOptions {
  readonly timeout?: number
  readonly interval?: number
}

/**
 * Calls `fn` until it does not throw and does not return false, null, 0 or ''; returns what it returned. `undefined`
 * counts as done, because that is what a passed assertion returns: to wait for a row, return a boolean. After the timeout
 * it fails as `fn` failed last.
 *
 * @example
 * await eventually(() => expect(proxy.connections).toBe(0))
 * await eventually(async () => (await api.aborted) === 1)
 */
export async function eventually<T>(
  fn: () => T | Promise<T>,
  { timeout = 10_000, interval = 20 }: EventuallyOptions = {},
): Promise<T> {
  const late = AbortSignal.timeout(timeout)
  let failure: unknown = new Error(`The first try did not settle in ${timeout} ms`)
  while (true) {
    try {
      const value = await inTime(fn, late)
      if (value === undefined || value) return value
      failure = new Error(`Still ${inspect(value)} after ${timeout} ms`)
    } catch (error) {
      if (error !== late.reason) failure = error
    }
    await new Promise((resolve) => setTimeout(resolve, interval))
    if (late.aborted) throw failure
  }
}

async function inTime<T>(fn: () => T | Promise<T>, late: AbortSignal): Promise<T> {
  let onLate = () => {}
  const lateness = new Promise<never>((_, reject) => {
    onLate = () => reject(late.reason)
    late.addEventListener('abort', onLate)
  })
  try {
    return await Promise.race([fn(), lateness])
  } finally {
    late.removeEventListener('abort', onLate)
  }
}
