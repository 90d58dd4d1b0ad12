import path from 'node:path'
import type pg from 'pg'
import type { Job } from 'triphase'
import type { Backend } from './backend.ts'
import { assignJob, findCapture, findOrCreateCapture, type NewCapture } from './captures.ts'
import type { WhenReachable } from './database.ts'
import { readImageFile } from './image-folder.ts'
import { contentHash } from './images.ts'
import { captureKey } from './object-store.ts'

/** An image to be analysed: the file, and what to call it. */
export interface ImageSource {
  readonly name: string
  readonly file: string
}

/** What became of a file: a capture whose analysis waits, one that was analysed before, or the reason why there is none. */
export type Ingested =
  | { readonly kind: 'waiting' | 'known'; readonly captureId: string }
  | { readonly kind: 'refused'; readonly message: string }

const KINDS: Record<string, string> = { '.jpg': 'jpeg', '.jpeg': 'jpeg', '.png': 'png', '.webp': 'webp' }

/**
 * Stores an image and, in one transaction, writes its capture and the job that analyses it. The same content is one
 * capture and one job, however often and by however many runs it is delivered; what is analysed already is left alone,
 * and what failed before is tried again.
 *
 * @throws {ObjectStoreError} when the image cannot be stored.
 */
export async function ingestImage(
  backend: Backend,
  cameraId: string,
  source: ImageSource,
  whenReachable: WhenReachable,
): Promise<Ingested> {
  const content = await readImageFile(source.file)
  if (!content.ok) return { kind: 'refused', message: content.problem.message }
  const { bytes } = content
  const hash = contentHash(bytes)
  const known = await whenReachable(() => findCapture(backend.pool, hash))
  if (known?.status === 'completed') return { kind: 'known', captureId: known.id }
  const kind = KINDS[path.extname(source.file).toLowerCase()] ?? 'jpeg'
  // Again for a capture that is known: its object may be what was missing.
  const objectKey = known?.objectKey ?? captureKey(hash, kind)
  await backend.store.put(objectKey, bytes, `image/${kind}`)
  const capture = { cameraId, contentHash: hash, objectKey, fileName: source.name, bytes: bytes.byteLength }
  return whenReachable(() => backend.engine.transaction((tx) => enqueueAnalysis(backend, tx, capture)))
}

async function enqueueAnalysis(backend: Backend, tx: pg.PoolClient, capture: NewCapture): Promise<Ingested> {
  const { id: captureId, jobId, status } = await findOrCreateCapture(tx, capture)
  const job = jobId === null ? null : await backend.engine.job(jobId)
  // The status is as of before the wait for the lock; what completed meanwhile is told by the job.
  if (status === 'completed' || job?.state === 'completed') return { kind: 'known', captureId }
  await assignJob(tx, captureId, await jobFor(backend, tx, captureId, job))
  return { kind: 'waiting', captureId }
}

/** The job that analyses a capture: the one that it has, brought back where that has failed, or a new one. */
async function jobFor(
  { engine, task }: Backend,
  tx: pg.PoolClient,
  captureId: string,
  job: Job | null,
): Promise<string> {
  if (job) {
    // It keeps the answers that were paid for, which another job would not have.
    const failed = job.state === 'discarded' || job.state === 'cancelled'
    if (!failed || (await engine.retry(job.id))) return job.id
  }
  const { id } = await engine.enqueue(task, { captureId }, { tx, uniqueKey: `capture-${captureId}` })
  return id
}
