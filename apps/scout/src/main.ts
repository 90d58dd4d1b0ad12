import { Command } from 'commander'
import { analyze } from './analyze.ts'
import { readSettings } from './settings.ts'
import { printable } from './terminal.ts'

const EXIT_MS = 3_000

const program = new Command('npm run scout --')
  .description('Camera analysis on Triphase: images in, observations out.')
  .showHelpAfterError()

program
  .command('analyze')
  .description('analyse the images of a folder (jpg, png, webp; with subfolders), or the demo photos')
  .argument('<folder>', 'a folder, or the word samples')
  .action(async (folder: string) => {
    process.exitCode = await analyze(folder, readSettings(), process.stdout)
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
