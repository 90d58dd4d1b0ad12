/** How a run ended: the process's exit code. */
export type ExitCode = 0 | 1 | 130 | 143

type StopSignal = 'SIGINT' | 'SIGTERM'

/** A run that was told to stop by a signal. */
class Interrupted extends Error {
  /** What a shell shows for a program that this signal ended. */
  readonly exitCode: 130 | 143

  constructor(signal: StopSignal) {
    super(`interrupted by ${signal}`)
    this.name = 'Interrupted'
    this.exitCode = signal === 'SIGINT' ? 130 : 143
  }
}

// Under npm one Ctrl-C arrives several times: from the terminal, and from each npm that passes it on.
const SAME_PRESS_MS = 500
// Calls get 10 s of it. The rest is for what the database has to be told, which may be away.
const LONGEST_STOP_MS = 15_000

/**
 * Turns the first SIGINT or SIGTERM into an abort whose reason is an {@link Interrupted}. Another one, half a second
 * later or more, ends the process at once; so does a stop that takes longer than 15 s. What was under way then is
 * rescued by the next run.
 */
function onSignals(): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController()
  let firstAt = 0
  const handle = (signal: StopSignal) => {
    const interrupted = new Interrupted(signal)
    if (!controller.signal.aborted) {
      firstAt = performance.now()
      controller.abort(interrupted)
      setTimeout(() => process.exit(interrupted.exitCode), LONGEST_STOP_MS).unref()
    } else if (performance.now() - firstAt > SAME_PRESS_MS) process.exit(interrupted.exitCode)
  }
  process.on('SIGINT', handle)
  process.on('SIGTERM', handle)
  return {
    signal: controller.signal,
    end: () => {
      process.off('SIGINT', handle)
      process.off('SIGTERM', handle)
    },
  }
}

/** A command that is at work, with everything that it has opened. */
export interface Undertaking {
  work(): Promise<ExitCode>
  /** Ends gracefully what runs, after a signal. */
  stop(): Promise<void>
  close(): Promise<void>
}

/**
 * Runs a command to its end or to a signal's, and closes what it has opened.
 *
 * @param begin opens it; what it gets is aborted by the signal.
 */
export async function untilSignal(begin: (signal: AbortSignal) => Promise<Undertaking>): Promise<ExitCode> {
  const { signal, end } = onSignals()
  try {
    const undertaking = await begin(signal)
    try {
      return await undertaking.work()
    } catch (error) {
      if (signal.aborted) await undertaking.stop()
      throw signal.aborted ? signal.reason : error
    } finally {
      await undertaking.close()
    }
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    return error.exitCode
  } finally {
    end()
  }
}
