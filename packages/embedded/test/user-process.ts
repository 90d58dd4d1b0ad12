import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { EmbeddedPostgresOptions } from '../src/index.ts'

export const program: string = fileURLToPath(new URL('./programs/use-server.ts', import.meta.url))

export interface Message {
  url?: string
  port?: number
  milliseconds?: number
  stopped?: boolean
  code?: string
  message?: string
}

/** A process that uses a server: see programs/use-server.ts. */
export class UserProcess {
  readonly child: ChildProcess
  readonly #messages: AsyncIterator<string>

  constructor(
    options: EmbeddedPostgresOptions,
    behaviour: 'stay' | 'leave at once' | 'forget at once' = 'stay',
    spawnOptions: SpawnOptions = {},
    command: string[] = [process.execPath, '--conditions=triphase-source', program],
  ) {
    const [executable = '', ...first] = command
    this.child = spawn(executable, [...first, JSON.stringify(options), behaviour], {
      stdio: ['pipe', 'pipe', 'inherit'],
      ...spawnOptions,
    })
    this.#messages = createInterface(this.child.stdout!)[Symbol.asyncIterator]()
  }

  async nextMessage(): Promise<Message> {
    const { value, done } = await this.#messages.next()
    return done ? {} : JSON.parse(value)
  }

  async stop(): Promise<Message> {
    this.child.stdin!.write('stop\n')
    return this.nextMessage()
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    this.child.kill(signal)
    await this.ended()
  }

  /** Resolves when the process has ended and nobody holds its output open any more. */
  async ended(): Promise<void> {
    if (!this.child.stdout!.closed) await once(this.child, 'close')
  }
}
