import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { type Channel, Conversation } from './conversation.ts'

/** A process that a benchmark started. */
export class Child extends Conversation {
  readonly #process: ChildProcess
  /** Resolves when the process has ended as it should, rejects when it failed. */
  readonly ended: Promise<void>
  #killed = false

  /**
   * @param program URL of the module that the process runs.
   * @param flags of Node, besides those of this process.
   */
  constructor(program: URL, order: unknown, flags: readonly string[] = []) {
    const execArgv = [...process.execArgv, ...flags]
    const child = fork(program, { execArgv, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    super(child as unknown as Channel)
    this.#process = child
    this.ended = once(child, 'exit').then(([code, signal]) => this.#ending(program, code, signal))
    this.ended.catch(() => {})
    this.tell('order', order)
  }

  /** kill -9: the process gets no chance to say anything. Resolves when it is gone. */
  async kill(): Promise<void> {
    this.#killed = true
    this.#process.kill('SIGKILL')
    await this.ended
  }

  /** Whoever still waits for a message of the process learns that none will come. */
  #ending(program: URL, code: unknown, signal: unknown): void {
    const reason = new Error(`${program.pathname} ended with ${signal ?? `code ${code}`}`)
    this.breakOff(reason)
    if (code !== 0 && !this.#killed) throw reason
  }
}
