import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Backend, openBackend } from './backend.ts'
import { captureResults, captureStates, failAnalysis } from './captures.ts'
import { watchConnections } from './connections.ts'
import { listImages } from './image-folder.ts'
import { cameraOf, folderSources, type ImageSource, ingestImage, sampleSources } from './ingest.ts'
import { type Progress, showProgress } from './progress.ts'
import { connectionLines, imageTable } from './report.ts'
import type { Settings } from './settings.ts'

const READ_AT_ONCE = 4
const LOOK_EVERY_MS = 200
const STOP_GRACE_MS = 10_000

/** How a run ended: the process's exit code. */
export type ExitCode = 0 | 1 | 130 | 143

/** A run that was told to stop by a signal. */
class Interrupted extends Error {
  readonly exitCode: 130 | 143
  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`)
    this.exitCode = signal === 'SIGINT' ? 130 : 143
  }
}

/**
 * Analyses the images of a folder, or the demo photos (`samples`), and shows how far it is and what it found. Killed at
 * any point and run again, it does the rest.
 *
 * @returns 0 when all images are analysed, 1 when some are not, 130 or 143 when a signal ended it.
 */
export async function analyze(
  target: string,
  settings: Settings,
  out: NodeJS.WriteStream,
): Promise<ExitCode> {
  const progress = showProgress(out)
  const sources = await imagesOf(target, progress)
  if (!sources) return 1
  const interrupt = onSignals()
  const backend = await openBackend(settings, (line) => progress.say(line))
  try {
    progress.say(
      `${sources.length} images from ${target}, ${backend.model.name}, database ${backend.databaseDescription}`,
    )
    return await run(backend, target, sources, progress, interrupt.signal)
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
    progress.stop()
    progress.say('Stopping. What is not finished goes on when the same command is run again.')
    return error.exitCode
  } finally {
    progress.stop()
    await backend.close(STOP_GRACE_MS)
    interrupt.end()
  }
}

async function imagesOf(target: string, progress: Progress): Promise<ImageSource[] | null> {
  if (target === 'samples') return sampleSources()
  const { files, problems } = await listImages(target)
  for (const { message } of problems) progress.say(message)
  return files.length > 0 ? folderSources(path.resolve(target), files) : null
}

/** The first signal stops the run gracefully, a second one ends the process at once. */
function onSignals(): { signal: AbortSignal; end: () => void } {
  const controller = new AbortController()
  const handle = (signal: 'SIGINT' | 'SIGTERM') => {
    const interrupted = new Interrupted(signal)
    if (controller.signal.aborted) process.exit(interrupted.exitCode)
    controller.abort(interrupted)
  }
  process.on('SIGINT', handle)
  process.on('SIGTERM', handle)
  return {
    signal: controller.signal,
    end: () => {
      process.off('SIGINT', handle)
      process.off('SIGTERM', handle)
    },
  }
}

async function run(
  backend: Backend,
  target: string,
  sources: readonly ImageSource[],
  progress: Progress,
  signal: AbortSignal,
): Promise<ExitCode> {
  const connections = watchConnections(backend)
  await backend.engine.start()
  const camera = await cameraOf(
    backend,
    target === 'samples' ? 'samples' : path.basename(path.resolve(target)),
  )
  const found = { captures: new Set<string>(), known: 0, refused: [] as string[], all: false }
  const ingesting = ingestAll(backend, camera, sources, found, signal).finally(() => {
    found.all = true
  })
  // Its failure is met where it is awaited; until then the run watches what was written before.
  ingesting.catch(() => {})
  await watch(backend, sources.length, found, progress, signal)
  await ingesting
  return report(backend, found, progress, connections)
}

interface Found {
  readonly captures: Set<string>
  known: number
  readonly refused: string[]
  all: boolean
}

async function ingestAll(
  backend: Backend,
  camera: string,
  sources: readonly ImageSource[],
  found: Found,
  signal: AbortSignal,
): Promise<void> {
  const waiting = [...sources]
  const reader = async () => {
    for (let source = waiting.shift(); source && !signal.aborted; source = waiting.shift()) {
      const ingested = await ingestImage(backend, camera, source)
      if (ingested.kind === 'refused') found.refused.push(`${ingested.name}: ${ingested.message}`)
      else found.captures.add(ingested.captureId)
      if (ingested.kind === 'known') found.known++
    }
  }
  await Promise.all(Array.from({ length: READ_AT_ONCE }, reader))
}

/** Follows the run in the database until every capture is through, whichever process works on it. */
async function watch(
  backend: Backend,
  total: number,
  found: Found,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  for (let looks = 0; ; looks++) {
    signal.throwIfAborted()
    const allFound = found.all
    const captures = [...found.captures]
    const states = await reachable(() => captureStates(backend.pool, captures), progress, signal)
    const count = (status: string) => states.filter((state) => state.status === status).length
    const failed = count('failed') + found.refused.length
    const duplicates = allFound ? total - captures.length - found.refused.length : 0
    progress.update({ total: total - duplicates, done: count('completed'), failed })
    const open = states.filter((state) => state.status === 'processing')
    if (allFound && open.length === 0) return
    if (looks % 20 === 19) await settleAbandoned(backend, open)
    await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
  }
}

/** A job whose processes keep dying is discarded without its task being asked: then its analysis failed. */
async function settleAbandoned(
  backend: Backend,
  open: readonly { captureId: string; jobId: string | null }[],
): Promise<void> {
  for (const { captureId, jobId } of open.slice(0, 50)) {
    const job = jobId === null ? null : await backend.engine.job(jobId)
    if (job?.state !== 'discarded' && job?.state !== 'cancelled') continue
    const { message } = (job.error ?? {}) as { message?: string }
    await failAnalysis(backend.pool, captureId, message ?? `the job was ${job.state}`)
  }
}

/** Looks again while the database is away. */
async function reachable<Value>(
  look: () => Promise<Value>,
  progress: Progress,
  signal: AbortSignal,
): Promise<Value> {
  for (let tries = 0; ; tries++) {
    try {
      return await look()
    } catch (error) {
      signal.throwIfAborted()
      if (tries === 0)
        progress.say(`The database does not answer (${(error as Error).message}). Waiting for it.`)
      if (tries === 300) throw error
      await delay(1_000, undefined, { signal }).catch(() => {})
    }
  }
}

async function report(
  backend: Backend,
  found: Found,
  progress: Progress,
  connections: ReturnType<typeof watchConnections>,
): Promise<ExitCode> {
  progress.stop()
  const results = await captureResults(backend.pool, [...found.captures])
  const failed = results.filter(({ status }) => status !== 'completed')
  progress.say('')
  progress.say(imageTable(results))
  if (found.known > 0) progress.say(`${found.known} of them had been analysed before and were left alone.`)
  if (backend.model.local) {
    progress.say(
      'Observed by the detector that runs here (80 kinds of things); set SCOUT_MODEL for a language model.',
    )
  }
  for (const line of connectionLines(connections())) progress.say(line)
  for (const line of found.refused) progress.say(`not read: ${line}`)
  for (const { fileName, error } of failed) progress.say(`failed: ${fileName}: ${error ?? 'not finished'}`)
  return failed.length + found.refused.length > 0 ? 1 : 0
}
