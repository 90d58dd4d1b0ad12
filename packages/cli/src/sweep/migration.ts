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
      .addOption(
        new Option('--format <format>', 'what the migration is for').choices(FORMATS).default('sql'),
      ),
  read(command: Command) {
    const { format } = command.opts<{ format: MigrationFormat }>()
    return async ({ name, control, output }) => {
      const text = control.migration({ format })
      if (output.json) output.result<'migration'>({ sweep: name, format, migration: text }, () => [])
      else output.write(text)
      return EXIT.ok
    }
  },
}
