import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { wrongUsage } from './arguments.ts'
import { EXIT, type ExitCode } from './exit-codes.ts'
import type { Results } from './json.ts'
import { defineMigrate, migrate } from './migrate-command.ts'
import { watchStdout } from './output.ts'
import { explain, withoutSecrets } from './problem.ts'
import { type Shared, shared, strict } from './shared-options.ts'
import { VERBS } from './sweep/verbs.ts'
import { sweepCommand, verbsHelp } from './sweep-command.ts'
import { defineWork, work } from './work-command.ts'

/**
 * Does what a command line says, and tells what went wrong.
 *
 * @returns the exit code.
 */
export async function main(args: readonly string[]): Promise<ExitCode> {
  let code: ExitCode = EXIT.ok
  const program = programOf((exitCode) => {
    code = exitCode
  })
  const allWritten = watchStdout()
  try {
    await program.parseAsync(args, { from: 'user' }).catch((error: unknown) => {
      // Help and version were asked for, and are printed.
      if (!(error instanceof CommanderError && error.exitCode === 0)) throw error
    })
    await allWritten()
    return code
  } catch (error) {
    return tell(error, args)
  }
}

function programOf(exit: (code: ExitCode) => void): Command {
  const program = shared(strict(new Command('triphase')))
    .description('The command line of Triphase: background jobs and sweeps on Postgres.')
    .version(version(), '--version', 'show the version')
    .enablePositionalOptions()
  const migrating = shared(defineMigrate(strict(program.command('migrate'))))
  migrating.action(async () => exit(await migrate(migrating.optsWithGlobals())))
  const working = shared(defineWork(strict(program.command('work'))))
  working.action(async () => exit(await work(working.optsWithGlobals())))
  const sweep = shared(strict(program.command('sweep')))
    .description('begin, watch and steer the runs of a sweep')
    .usage('NAME VERB [options]')
    .argument('<name>', 'the sweep, as defineSweep names it')
    .argument('[verb...]', 'what to do, with its options')
    .passThroughOptions()
    .addHelpText('after', verbsHelp)
  sweep.action(async (name: string, rest: string[]) => {
    refuseSwapped(name, rest)
    await sweepCommand(name, sweep.optsWithGlobals<Shared>(), exit).parseAsync(rest, { from: 'user' })
  })
  return program
}

/** `triphase sweep status`: the name was left out, or stands behind the verb. */
function refuseSwapped(name: string, [verb = '', other]: string[]): void {
  const isVerb = (word: string | undefined) => VERBS.some((one) => one.name === word)
  if (!isVerb(name) || isVerb(verb) || ['-h', '--help'].includes(verb)) return
  const sweep = other === undefined && !verb.startsWith('-') && verb !== '' ? verb : 'NAME'
  throw wrongUsage(`The name of the sweep comes first: triphase sweep ${sweep} ${name}.`)
}

/** One line, or one JSON value, on stderr. */
function tell(error: unknown, args: readonly string[]): ExitCode {
  const { exitCode, code, message } = explain(error)
  // Commander has shown the help instead of a message where no command was given.
  if (error instanceof CommanderError && error.code === 'commander.help') return exitCode
  const debug = args.includes('--debug') || process.env.TRIPHASE_DEBUG !== undefined
  const stack = debug && error instanceof Error ? withoutSecrets(stackOf(error)) : undefined
  const text = args.includes('--json')
    ? JSON.stringify({ error: { code, message, ...(stack ? { stack } : {}) } } satisfies Results['error'])
    : `${code}: ${message}${stack ? `\n${stack}` : ''}`
  process.stderr.write(`${text}\n`)
  return exitCode
}

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\nCaused by: ${stackOf(error.cause)}` : ''
  return `${error.stack ?? error.message}${cause}`
}

function version(): string {
  return JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version
}
