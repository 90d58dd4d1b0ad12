import path from 'node:path'
import type { Backend } from './backend.ts'
import { assignJob, findOrCreateCamera, findOrCreateCapture } from './captures.ts'
import { readImageFile } from './image-folder.ts'
import { contentHash } from './images.ts'
import { captureKey } from './object-store.ts'
import { samplePhotos } from './samples.ts'

/** An image to be analysed: the file, and what to call it. */
export interface ImageSource {
  readonly name: string
  readonly file: string
}

/** What became of a file: a capture of this run, one that was analysed before, or the reason why there is none. */
export type Ingested =
  | { readonly kind: 'capture'; readonly captureId: string }
  | { readonly kind: 'known'; readonly captureId: string }
  | { readonly kind: 'refused'; readonly name: string; readonly message: string }

const PROFILE = {
  prompt: 'List what can be seen in this image: people, animals, vehicles, objects, and text.',
}

/** The camera that a folder's images belong to. */
export async function cameraOf(backend: Backend, name: string): Promise<string> {
  return findOrCreateCamera(backend.pool, name, PROFILE)
}

/** The demo photos. */
export function sampleSources(): ImageSource[] {
  return samplePhotos().map(({ name, file }) => ({ name, file }))
}

/** Files of a folder, named as they are seen from it. */
export function folderSources(folder: string, files: readonly string[]): ImageSource[] {
  return files.map((file) => ({ name: path.relative(folder, file) || path.basename(file), file }))
}

/**
 * Stores an image and, in one transaction, writes its capture and the job that analyses it. The same content is one
 * capture and one job, however often and by however many runs it is delivered; what is analysed already is left alone,
 * and what failed before is tried again.
 */
export async function ingestImage(
  backend: Backend,
  cameraId: string,
  source: ImageSource,
): Promise<Ingested> {
  const content = await readImageFile(source.file)
  if (!content.ok) return { kind: 'refused', name: source.name, message: content.problem.message }
  const hash = contentHash(content.bytes)
  const extension = path.extname(source.file).slice(1).toLowerCase()
  const objectKey = captureKey(hash, extension)
  await backend.store.put(objectKey, content.bytes, `image/${extension === 'jpg' ? 'jpeg' : extension}`)
  const { engine, task } = backend
  return engine.transaction(async (tx): Promise<Ingested> => {
    const bytes = content.bytes.byteLength
    const capture = await findOrCreateCapture(tx, {
      cameraId,
      contentHash: hash,
      objectKey,
      fileName: source.name,
      bytes,
    })
    const { id: captureId, jobId, status } = capture
    if (status === 'completed') return { kind: 'known', captureId }
    // A job that failed keeps the answers it paid for, so it is that job that runs again.
    const again = status === 'failed' && jobId !== null && (await engine.retry(jobId))
    const job = again
      ? { id: jobId }
      : await engine.enqueue(task, { captureId }, { tx, uniqueKey: `capture-${captureId}` })
    await assignJob(tx, captureId, job.id as string)
    return { kind: 'capture', captureId }
  })
}
