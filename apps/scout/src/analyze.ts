import path from 'node:path'
import { openBackend } from './backend.ts'
import { listImages, type PathProblem } from './image-folder.ts'
import { type ExitCode, untilSignal } from './interrupt.ts'
import { showProgress } from './progress.ts'
import { type Images, Run } from './run.ts'
import { samplePhotos } from './samples.ts'
import type { Settings } from './settings.ts'
import { printable } from './terminal.ts'

/** There is nothing to analyse; the message says why, a line for each problem. */
class NoImagesError extends Error {
  readonly code = 'NO_IMAGES'

  constructor(problems: readonly PathProblem[]) {
    super(problems.map(({ message }) => printable(message)).join('\n'))
    this.name = 'NoImagesError'
  }
}

/**
 * Analyses the images of a folder, or the demo photos (`samples`), and shows how far it is and what it found. Killed at
 * any point and run again, it does the rest.
 *
 * @returns 0 when all images are analysed, 1 when some are not, 130 or 143 when a signal ended it.
 * @throws whatever keeps it from starting: no images, wrong rights, a database that does not come.
 */
export async function analyze(
  target: string,
  settings: Settings,
  out: NodeJS.WriteStream,
): Promise<ExitCode> {
  const images = target === 'samples' ? samples() : await imagesIn(target)
  const progress = showProgress(out)
  return untilSignal(async (signal) => {
    const backend = await openBackend(settings, (line) => progress.say(line), signal)
    const run = new Run({ backend, images, progress, signal })
    return {
      async work() {
        await run.work()
        return (await run.report(out)) ? 0 : 1
      },
      stop: () => run.stop(),
      async close() {
        progress.stop()
        await backend.close(0)
      },
    }
  })
}

function samples(): Images {
  return { name: 'samples', sources: samplePhotos(), problems: [] }
}

async function imagesIn(folder: string): Promise<Images> {
  // A variable of a script that is not set: not a wish for whatever lies in the current folder.
  if (folder === '') {
    const message = 'The name of the folder is empty. Give a folder; . is the current one.'
    throw new NoImagesError([{ code: 'FOLDER_MISSING', path: folder, message }])
  }
  const root = path.resolve(folder)
  const { files, problems } = await listImages(root)
  if (files.length === 0) throw new NoImagesError(problems)
  const sources = files.map((file) => ({ name: path.relative(root, file), file }))
  return { name: path.basename(root) || root, sources, problems }
}
