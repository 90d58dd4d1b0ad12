import { addCaptures, changePrompt, findOrBeginBackfill, finishBackfill, openBackfill } from './backfills.ts'
import { describeCaptures } from './describe-captures.ts'
import type { ExitCode } from './interrupt.ts'
import {
  countsOf,
  followRun,
  retryErrors,
  runSweepCommand,
  type SweepRun,
  troubleLines,
} from './run-sweep.ts'
import type { Settings } from './settings.ts'
import { counted, inWords } from './words.ts'

export interface BackfillOptions {
  /** What the model is asked from now on, for all cameras. */
  readonly prompt?: string
  /** Only what failed the last time. */
  readonly retryErrors?: boolean
}

/**
 * Has the model describe all captures again. Killed at any point and run again, it does the rest; when it is through, the
 * next one begins anew.
 *
 * @returns 0 when all are described, 1 when some are not, 130 or 143 when a signal ended it.
 */
export async function backfill(
  options: BackfillOptions,
  settings: Settings,
  out: NodeJS.WriteStream,
): Promise<ExitCode> {
  const work = (run: SweepRun) => describeAgain(run, options)
  return runSweepCommand({ settings, noun: 'capture', define: describeCaptures, work }, out)
}

async function describeAgain(run: SweepRun, options: BackfillOptions): Promise<boolean> {
  const { backend, whenReachable, say } = run
  const began = performance.now()
  await whenReachable(() => prepare(run, options))
  const before = await countsOf(run)
  if (before.total === 0) {
    say('Nothing to describe: no image has been analysed. Analyse some first.')
    return true
  }
  const about = `model ${backend.model.name}, database ${backend.databaseDescription}`
  say(`${counted(before.total, 'capture')}, ${before.pending} to describe, ${about}`)
  await backend.start()
  const status = await followRun(run)
  const open = await whenReachable(() => openBackfill(backend.pool))
  if (status.state === 'completed' && open !== null) {
    await whenReachable(() => finishBackfill(backend.pool, open))
  }
  const { total, done, errors, pending } = await countsOf(run)
  run.progress.stop()
  const parts = [
    `${done} described again`,
    ...(errors > 0 ? [`${errors} failed, which keep what was observed before`] : []),
    ...(pending > 0 ? [`${pending} left`] : []),
  ]
  const seconds = inWords((performance.now() - began) / 1_000)
  say('', `${counted(total, 'capture')}: ${parts.join(', ')}, in ${seconds}. See scout.observation.`)
  say(...(await troubleLines(run, status, { errors, pending })))
  return errors === 0 && pending === 0 && status.state === 'completed'
}

/** Idempotent: it is done again when the database was away. */
async function prepare(
  run: SweepRun,
  { prompt, retryErrors: onlyErrors = false }: BackfillOptions,
): Promise<void> {
  const { pool } = run.backend
  if (prompt !== undefined && (await changePrompt(pool, prompt))) {
    run.say('The prompt has changed: what was described with the old one is described again.')
  }
  if (onlyErrors) {
    await retryErrors(run)
    if ((await openBackfill(pool)) === null) return
  }
  const { id } = await findOrBeginBackfill(pool)
  await addCaptures(pool, id)
}
