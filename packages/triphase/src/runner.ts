import type { Engine } from './engine.ts'

/** @see run */
export interface RunOptions {
  /** Called at the first signal, before the engine stops: close servers, tell people. */
  onSignal?: (signal: NodeJS.Signals) => void
}

/** One Ctrl-C may arrive several times: from the terminal, and from npm and shells in between. */
const SAME_SIGNAL_MS = 500

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Runs an engine until SIGINT or SIGTERM, then stops it gracefully. A second signal ends the process at once, with
 * exit code 130 (SIGINT) or 143 (SIGTERM): what was running is rescued by the other processes. The library itself
 * handles no signals.
 *
 * @returns the signal that ended it, once everything is stopped.
 * @example
 * await engine.migrate()
 * await run(engine)
 */
export async function run<Tx>(engine: Engine<Tx>, options: RunOptions = {}): Promise<NodeJS.Signals> {
  const signalled = Promise.withResolvers<NodeJS.Signals>()
  let firstAt: number | undefined
  const onSignal = (signal: NodeJS.Signals) => {
    if (firstAt !== undefined && performance.now() - firstAt < SAME_SIGNAL_MS) return
    if (firstAt !== undefined) process.exit(signal === 'SIGINT' ? 130 : 143)
    firstAt = performance.now()
    signalled.resolve(signal)
  }
  for (const signal of SIGNALS) process.on(signal, onSignal)
  try {
    await engine.start()
    const signal = await signalled.promise
    options.onSignal?.(signal)
    await engine.stop()
    return signal
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal)
  }
}
