import { type Command, Option } from 'commander'
import { EXIT } from '../exit-codes.ts'
import { counted, grouped } from '../words.ts'
import type { SweepVerb } from './verb.ts'
import { withFiles } from './with-files.ts'

interface Options {
  format?: 'csv' | 'jsonl'
  delimiter?: string
}

export const exportLines: SweepVerb = {
  name: 'export',
  define: (command) =>
    command
      .description('write each line of the file again, with its result or its error (sweeps over files)')
      .argument('<file>', 'where to; a file that is there is replaced when the new one is whole')
      .addOption(
        new Option('--format <format>', 'what it gets to be, where its name does not say').choices([
          'csv',
          'jsonl',
        ]),
      )
      .option('--delimiter <character>', 'what separates columns (default: as in the loaded file)'),
  read(command: Command) {
    const file: string = command.processedArgs[0]
    const options = command.opts<Options>()
    return (context) =>
      withFiles(context, async ({ files, sweep, pool, signal }) => {
        const { name, output } = context
        const counts = await files.exportFile({ pool }, sweep, file, { ...options, signal })
        output.result<'export'>({ sweep: name, file, ...counts }, () => [
          `${name}: ${counted(counts.lines, 'line')} in ${file}: ${grouped(counts.done)} done, ${counted(counts.errors, 'error')}, ${grouped(counts.pending)} pending.`,
        ])
        return EXIT.ok
      })
  },
}
