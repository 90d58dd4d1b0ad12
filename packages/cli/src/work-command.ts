import type { Command } from 'commander'
import { createLog, logTelemetry } from 'triphase/log'
import { run } from 'triphase/runner'
import { EXIT, type ExitCode } from './exit-codes.ts'
import { Problem } from './problem.ts'
import { type Shared, withEngine } from './shared-options.ts'

interface Options extends Shared {
  migrate: boolean
}

export function defineWork(command: Command): Command {
  return command
    .description(
      "work on the engine's queues until SIGINT or SIGTERM; running jobs get the grace period to finish",
    )
    .option('--migrate', 'bring the schema up to date first', false)
}

/** A worker that is told to stop and stops has done what it is for: that is no error. */
export function work(options: Options): Promise<ExitCode> {
  return withEngine(options, async (engine, output) => {
    if (engine.queues.size === 0) {
      throw new Problem(
        EXIT.config,
        'NO_QUEUES',
        'The engine has no queues to work on. Give createEngine some: queues: { default: 4 }.',
      )
    }
    const destination = output.json ? process.stdout : process.stderr
    const log = createLog({ destination, ...(output.json ? { format: 'json' } : {}) })
    const endLog = logTelemetry(engine.telemetry, log)
    if (options.migrate) await engine.migrate()
    await run(engine, { until: () => fired(output.closed) })
    endLog()
    return output.closed.aborted ? EXIT.outputClosed : EXIT.ok
  })
}

function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
