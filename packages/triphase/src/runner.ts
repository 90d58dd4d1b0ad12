import type { Engine, StartOptions } from './engine.ts'

/** @see run */
export interface RunOptions extends StartOptions {
  /** Called at the first signal, before the engine stops: close servers, tell people. */
  onSignal?: (signal: NodeJS.Signals) => void
  /**
   * What the engine runs for: called once it works, and when its promise is fulfilled the engine is stopped as by a
   * signal. Its own signal fires when the engine has stopped.
   */
  until?: (stopped: AbortSignal) => Promise<unknown>
}

/** One Ctrl-C may arrive several times: from the terminal, and from npm and shells in between. */
const SAME_SIGNAL_MS = 500

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Runs an engine until SIGINT or SIGTERM, then stops it gracefully. A second signal ends the process at once, with
 * exit code 130 (SIGINT) or 143 (SIGTERM): what was running is rescued by the other processes. The library itself
 * handles no signals.
 *
 * @returns the signal that ended it, once everything is stopped; null where `until` did.
 * @throws what `engine.start` throws, and what `until` does, once everything is stopped.
 * @example
 * await engine.migrate()
 * await run(engine)
 */
export async function run<Tx>(engine: Engine<Tx>, options: RunOptions = {}): Promise<NodeJS.Signals | null> {
  const { onSignal, until, ...start } = options
  const signalled = Promise.withResolvers<NodeJS.Signals>()
  let firstAt: number | undefined
  const handle = (signal: NodeJS.Signals) => {
    if (firstAt !== undefined && performance.now() - firstAt < SAME_SIGNAL_MS) return
    if (firstAt !== undefined) process.exit(signal === 'SIGINT' ? 130 : 143)
    firstAt = performance.now()
    signalled.resolve(signal)
  }
  for (const signal of SIGNALS) process.on(signal, handle)
  const stopped = new AbortController()
  try {
    await engine.start(start)
    try {
      const over = until?.(stopped.signal).then(() => null)
      const signal = await (over ? Promise.race([signalled.promise, over]) : signalled.promise)
      if (signal !== null) onSignal?.(signal)
      return signal
    } finally {
      await engine.stop()
      stopped.abort()
    }
  } finally {
    for (const signal of SIGNALS) process.off(signal, handle)
  }
}
