import { type Command, Option } from 'commander'
import type { MigrationFormat } from 'triphase'
import { EXIT } from '../exit-codes.ts'
import type { SweepVerb } from './verb.ts'

const FORMATS: readonly MigrationFormat[] = ['sql', 'kysely', 'drizzle', 'knex']

export const migration: SweepVerb = {
  name: 'migration',
  define: (command) =>
    command
      .description('print the migration that makes the table fit; connects to nothing')
      .addOption(new Option('--format <format>', 'what the migration is for').choices(FORMATS).default('sql'))
      .option('--partitions <names...>', 'all partitions of the table, where it has some', []),
  read(command: Command) {
    const { format, partitions } = command.opts<{ format: MigrationFormat; partitions: string[] }>()
    return async ({ name, control, output }) => {
      const text = control.migration({ format, partitions })
      if (output.json) output.result<'migration'>({ sweep: name, format, migration: text }, () => [])
      else output.write(text)
      return EXIT.ok
    }
  },
}
