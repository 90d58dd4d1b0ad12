import { type Command, Option } from 'commander'
import { EXIT } from '../exit-codes.ts'
import { counted } from '../words.ts'
import type { SweepVerb } from './verb.ts'
import { withFiles } from './with-files.ts'

interface Options {
  replace: boolean
  format?: 'csv' | 'jsonl'
  delimiter?: string
}

export const load: SweepVerb = {
  name: 'load',
  define: (command) =>
    command
      .description('check a CSV or JSONL file and load its lines, all or none (sweeps over files)')
      .argument('<file>', 'the file')
      .option('--replace', 'in the place of another file, whose results are lost', false)
      .addOption(
        new Option('--format <format>', 'what it is, where its name does not say').choices(['csv', 'jsonl']),
      )
      .option('--delimiter <character>', 'what separates columns (default: what the first row has)'),
  read(command: Command) {
    const file: string = command.processedArgs[0]
    const options = command.opts<Options>()
    return (context) =>
      withFiles(context, async ({ files, sweep, pool, signal }) => {
        const { engine, name, output } = context
        const found = await files.loadFile({ engine, pool }, sweep, file, { ...options, signal })
        const loadedAt = found.loadedAt.toISOString()
        const { loaded, lines, bytes, sha256 } = found
        output.result<'load'>(
          { sweep: name, loaded, file: found.name, lines, bytes, sha256, loadedAt },
          () => [
            loaded
              ? `${name}: loaded ${counted(lines, 'line')} of ${found.name}.`
              : `${name}: ${found.name} is there already, with ${counted(lines, 'line')}, since ${loadedAt}.`,
          ],
        )
        output.note(`Go on with: ${context.command('run')}.`)
        return EXIT.ok
      })
  },
}
