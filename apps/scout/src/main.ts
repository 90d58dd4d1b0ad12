import { Command } from 'commander'
import { analyze } from './analyze.ts'
import { readSettings, SettingsError } from './settings.ts'

const program = new Command('scout')
  .description('Camera analysis on Triphase: images in, observations out.')
  .showHelpAfterError()

program
  .command('analyze')
  .description('analyse the images of a folder (jpg, png, webp; with subfolders), or the demo photos')
  .argument('<folder>', 'a folder, or the word samples')
  .action(async (folder: string) => {
    process.exitCode = await analyze(folder, readSettings(), process.stdout)
  })

try {
  await program.parseAsync()
} catch (error) {
  // What a person can mend is said in a sentence; anything else is a fault of the program and shows where.
  const mendable = error instanceof SettingsError || (error instanceof Error && 'code' in error)
  console.error(mendable ? (error as Error).message : error)
  process.exitCode = 1
}
