import type { Backend } from './backend.ts'
import type { WhenReachable } from './database.ts'
import { type ImageSource, ingestImage } from './ingest.ts'
import { ObjectStoreError } from './object-store.ts'
import type { Tally } from './tally.ts'

const READ_AT_ONCE = 4

/**
 * Ingests images, a few at a time. A store that fails ends it, noted in the tally: the next image would fare no better,
 * and what was stored is analysed all the same.
 *
 * @throws what else goes wrong.
 */
export async function ingestAll(
  backend: Backend,
  cameraId: string,
  sources: readonly ImageSource[],
  tally: Tally,
  signal: AbortSignal,
  whenReachable: WhenReachable,
): Promise<void> {
  const waiting = sources.values()
  let failed = false
  const reader = async () => {
    // All readers take from one iterator.
    for (const source of waiting) {
      if (failed || tally.stopped || signal.aborted) return
      await ingestOne(source)
    }
  }
  const ingestOne = async (source: ImageSource) => {
    try {
      const ingested = await ingestImage(backend, cameraId, source, whenReachable)
      if (ingested.kind === 'refused') tally.refused.push({ name: source.name, message: ingested.message })
      else tally.add(ingested.captureId, source.name, ingested.kind === 'known')
    } catch (error) {
      if (!(error instanceof ObjectStoreError)) {
        failed = true
        throw error
      }
      tally.stopped ??= error
    }
  }
  const readers = Array.from({ length: READ_AT_ONCE }, reader)
  const outcomes = await Promise.allSettled(readers)
  tally.ended = true
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason
}
