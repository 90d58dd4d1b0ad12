import type { Command } from 'commander'
import { migrationSql, SCHEMA_VERSION } from 'triphase'
import { whole, wrongUsage } from './arguments.ts'
import type { ConfiguredEngine } from './config-file.ts'
import { EXIT, type ExitCode } from './exit-codes.ts'
import type { Output } from './output.ts'
import { type Shared, withEngine } from './shared-options.ts'

interface Options extends Shared {
  print: boolean
  after?: number
}

export function defineMigrate(command: Command): Command {
  return command
    .description("bring the engine's schema up to date, or print the SQL that does")
    .option('--print', 'print the SQL for migrations of your own; connects to nothing', false)
    .option('--after <version>', 'with --print: what comes after this version of the schema', whole(0))
}

export async function migrate(options: Options): Promise<ExitCode> {
  const { print, after } = options
  if (after !== undefined && !print) throw wrongUsage('--after belongs to --print.')
  return withEngine(options, async (engine, output) => {
    if (print) printSql(engine, output, after ?? 0)
    else await apply(engine, output)
    return EXIT.ok
  })
}

function printSql({ schema }: ConfiguredEngine, output: Output, after: number): void {
  const sql = migrationSql({ schema, after })
  if (output.json) output.result<'migratePrint'>({ schema, after, version: SCHEMA_VERSION, sql }, () => [])
  else output.write(sql)
}

async function apply(engine: ConfiguredEngine, output: Output): Promise<void> {
  const applied = await engine.migrate()
  output.result<'migrate'>({ schema: engine.schema, version: SCHEMA_VERSION, applied }, () => [
    applied.length === 0
      ? `Schema ${engine.schema} is up to date (version ${SCHEMA_VERSION}).`
      : `Schema ${engine.schema} is at version ${SCHEMA_VERSION} now (applied ${applied.join(', ')}).`,
  ])
}
