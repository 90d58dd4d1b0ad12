import { findProgram, freePort, reasonToSkip, ServerProgram } from './server-program.ts'

const PROGRAM = findProgram('redis-server')

/** Why there is no Redis for the tests here; undefined when there is one. */
export const NO_REDIS: string | undefined = reasonToSkip(
  PROGRAM,
  'Redis is not installed (Debian: apt-get install -y redis-server)',
)

/** A real Redis that keeps nothing. */
export interface RedisServer {
  readonly url: string
  /** Ends it at once. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Ends it and removes its folder. */
  dispose(): Promise<void>
}

const START_TRIES = 5

export async function startRedis(): Promise<RedisServer> {
  if (!PROGRAM) throw new Error(NO_REDIS)
  const folder = await ServerProgram.folder('redis')
  // The port may be taken between the system's choice and the start.
  for (let tries = 1; ; tries++) {
    const port = await freePort()
    const options = { bind: '127.0.0.1', port, dir: folder, save: '', appendonly: 'no' }
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
    const program = new ServerProgram(folder, [PROGRAM, ...args], /Ready to accept connections/)
    try {
      await program.start()
    } catch (error) {
      if (tries < START_TRIES && /in use/.test(program.output)) continue
      await program.dispose()
      throw error
    }
    return {
      url: `redis://127.0.0.1:${port}`,
      kill: () => program.end('SIGKILL'),
      start: () => program.start(),
      dispose: () => program.dispose(),
    }
  }
}
