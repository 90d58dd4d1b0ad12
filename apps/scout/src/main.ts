import { readFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import { analyze } from './analyze.ts'
import { type BackfillOptions, backfill } from './backfill.ts'
import { type FilesOptions, files } from './files.ts'
import { readSettings } from './settings.ts'
import { printable } from './terminal.ts'

const EXIT_MS = 3_000

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))

const program = new Command('npm run scout --')
  .description('Camera analysis on Triphase: images in, observations out.')
  .version(version)
  .showHelpAfterError()

program
  .command('analyze')
  .description('analyse the images of a folder (jpg, png, webp; with subfolders), or the demo photos')
  .argument('<folder>', 'a folder, or the word samples')
  .action(async (folder: string) => {
    process.exitCode = await analyze(folder, readSettings(), process.stdout)
  })

program
  .command('backfill')
  .description('have all analysed images described again, since what is asked of them has changed')
  .option('--prompt <text>', 'what to ask from now on, for all cameras')
  .addOption(new Option('--retry-errors', 'only what failed the last time').conflicts('prompt'))
  .action(async (options: BackfillOptions) => {
    process.exitCode = await backfill(options, readSettings(), process.stdout)
  })

program
  .command('files')
  .description('send each line of a list of your own through the model; its lines come back with the results')
  .argument('<list>', 'a file: .csv, .tsv, .jsonl or .ndjson')
  .requiredOption(
    '--column <kind[=name]>',
    'what holds the images or texts: url, path or text; with =NAME where the column is not called so',
  )
  .option('--output <file>', 'where the results go (default: beside the list, NAME.results.csv)')
  .option('--prompt <text>', 'what to ask of each line')
  .option('--delimiter <character>', 'what separates columns (default: , or ; or a tab, by the header row)')
  .option('--retry-errors', 'lines that failed as well')
  .option('--replace', 'begin anew with a list that has changed')
  .action(async (list: string, options: FilesOptions) => {
    process.exitCode = await files(list, options, readSettings(), process.stdout)
  })

// Whoever read the output is gone (`| head`): nothing more can be said, and the next run goes on from here.
process.stdout.on('error', ({ code }: NodeJS.ErrnoException) => process.exit(code === 'EPIPE' ? 141 : 1))

try {
  await program.parseAsync()
} catch (error) {
  console.error(isForPeople(error) ? error.message.split('\n').map(printable).join('\n') : error)
  process.exitCode = 1
}
// Everything is closed by now; a connection that hangs must not keep the process.
setTimeout(() => process.exit(), EXIT_MS).unref()

/** What a person can mend is said in a sentence; anything else is a fault of the program and shows where. */
function isForPeople(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && !String(error.code).startsWith('ERR_')
}
