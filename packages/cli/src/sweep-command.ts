import { Command } from 'commander'
import type { Sweep } from 'triphase'
import type { ConfiguredEngine } from './config-file.ts'
import { EXIT, type ExitCode } from './exit-codes.ts'
import { explain, Problem } from './problem.ts'
import { type Shared, shared, strict, withEngine } from './shared-options.ts'
import type { SweepContext } from './sweep/verb.ts'
import { VERBS } from './sweep/verbs.ts'
import { isFileSweep } from './sweep/with-files.ts'

/** `triphase sweep NAME VERB`: what follows the name is a program of its own, whose commands are the verbs. */
export function sweepCommand(name: string, outer: Shared, exit: (code: ExitCode) => void): Command {
  const program = strict(new Command(`triphase sweep ${name}`)).description(`one sweep: ${name}`)
  for (const verb of VERBS) {
    const command = shared(verb.define(strict(program.command(verb.name))))
    command.action(async () => {
      const work = verb.read(command)
      const options = { ...outer, ...command.opts<Shared>() }
      exit(
        await withEngine(options, async (engine, output, pool) => {
          const sweep = named(engine, name)
          const context: SweepContext = {
            name,
            sweep,
            control: engine.sweep(sweep),
            engine,
            pool,
            output,
            command: (line) => commandLine(name, line, options),
          }
          try {
            return await work(context)
          } catch (error) {
            const { exitCode, code, message } = explain(error, { name, isFile: isFileSweep(sweep) })
            throw new Problem(exitCode, code, message, { cause: error })
          }
        }),
      )
    })
  }
  return program
}

/** The verbs with what they do, for the help of `triphase sweep`. */
export function verbsHelp(): string {
  const width = Math.max(...VERBS.map(({ name }) => name.length))
  const lines = VERBS.map(
    ({ name, define }) => `  ${name.padEnd(width)}  ${define(new Command(name)).description()}`,
  )
  return `\nVerbs:\n${lines.join('\n')}\n\nOptions of one: triphase sweep NAME VERB --help`
}

function named(engine: ConfiguredEngine, name: string): Sweep {
  const sweep = engine.sweeps.find((one) => one.name === name)
  if (sweep) return sweep
  const names = engine.sweeps.map((one) => one.name).join(', ')
  throw new Problem(
    EXIT.usage,
    'UNKNOWN_SWEEP',
    names === ''
      ? `There is no sweep ${name}: the engine has none. Give createEngine one in tasks.`
      : `There is no sweep ${name}. There are: ${names}.`,
  )
}

function commandLine(name: string, line: string, { config }: Shared): string {
  return `triphase sweep ${name} ${line}${config === undefined ? '' : ` --config ${config}`}`
}
