import type { Command } from 'commander'
import { type ConfiguredEngine, loadConfig } from './config-file.ts'
import type { ExitCode } from './exit-codes.ts'
import { Output } from './output.ts'

/** Options that every command has. */
export interface Shared {
  config?: string
  json?: boolean
  debug?: boolean
}

export function shared(command: Command): Command {
  return command
    .option(
      '--config <file>',
      'the file that exports the engine (default: triphase.config.ts, .mts, .js or .mjs)',
    )
    .option('--json', 'say it as JSON')
    .option('--debug', 'show where an error comes from')
}

/** Errors are thrown and told in one place, and nothing that was typed is ignored. */
export function strict(command: Command): Command {
  return command
    .exitOverride()
    .configureOutput({ outputError: () => {} })
    .allowExcessArguments(false)
    .helpOption('-h, --help', 'show this')
    .helpCommand(false)
}

/** Loads the engine, does the work, and leaves nothing open. */
export async function withEngine(
  { config, json }: Shared,
  work: (engine: ConfiguredEngine, output: Output, pool: unknown) => Promise<ExitCode>,
): Promise<ExitCode> {
  const output = new Output(json === true)
  const { engine, pool } = await loadConfig(config)
  try {
    return await work(engine, output, pool)
  } finally {
    await engine.stop({ graceMs: 0 })
  }
}
