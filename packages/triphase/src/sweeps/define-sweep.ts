import { Permanent } from '../errors.ts'
import { findTries, openPage } from '../store/sweep-page.ts'
import { findRun } from '../store/sweep-run.ts'
import { complete, type ExecutionContext, snooze } from '../task.ts'
import { mayPass } from './marker.ts'
import { PageRun } from './page-run.ts'
import type { RunOnApplication } from './record-table.ts'
import { failRun, Steward, type StewardParts } from './steward.ts'
import { type RunSweepJob, type Sweep, type SweepDefinition, type SweepSettings, sweepOf } from './sweep.ts'
import type { SweepInput } from './sweep-input.ts'

/**
 * Defines a pass over the rows of a table, with a slow call for each pending one. Its result or its error is committed
 * to the row as soon as it is known, so a run can be killed at any point and goes on. See docs/sweeps.md.
 *
 * Give it to `createEngine` among the tasks, and control its runs with `engine.sweep`.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const describeFiles = defineSweep({
 *   name: 'describe-files',
 *   table: { name: 'files', key: 'id' },
 *   record: z.object({ id: z.string(), path: z.string() }),
 *   concurrency: 12,
 *   each: (file, { signal, idempotencyKey }) => describe(file.path, { signal, idempotencyKey }),
 * })
 */
export function defineSweep<Row = Record<string, unknown>, Item = Row>(
  definition: SweepDefinition<Row, Item>,
): Sweep<Item> {
  return sweepOf(definition, runSweepJob)
}

/** Until a database that cannot be reached is tried again. */
const AWAY_MS = 2_000

const runSweepJob: RunSweepJob = async (settings, table, context) => {
  const { run: runId, page, hook } = context.input as SweepInput
  if (hook) return runHook(settings, context, runId)
  // Each call has a time limit of its own; a page takes as long as its records do.
  context.stopTimer()
  const application = applicationOf(context)
  const parts = { settings, table, context, application, runId }
  try {
    return await (page === undefined ? new Steward(parts).tend() : runPage(parts, page))
  } catch (error) {
    // A stop, a cancelled job, a lost claim, or a database that is away: the run is none the worse for it.
    if (context.signal.aborted) throw error
    if (mayPass(error)) return snooze(AWAY_MS)
    await failRun(parts, error)
    throw new Permanent(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

async function runPage(parts: StewardParts, pageId: string): Promise<unknown> {
  const { context, settings, table, application, runId } = parts
  const page = await openPage(context.engine, pageId, context.claim)
  const run = await findRun(context.engine, runId)
  if (!page || !run) return complete()
  const tries = await findTries(context.engine, pageId)
  const fail = (error: unknown) => failRun(parts, error)
  return new PageRun({ settings, table, context, application, pageId, page, run, tries, fail }).run()
}

async function runHook(
  { onDone }: SweepSettings,
  context: ExecutionContext<unknown>,
  runId: string,
): Promise<unknown> {
  const run = await findRun(context.engine, runId)
  if (!run || !onDone) return complete()
  const { id, done, errors, calls, spent } = run
  const { signal, idempotencyKey } = context
  return onDone({ run: { id, done, errors, calls, spent }, signal, idempotencyKey })
}

function applicationOf(context: ExecutionContext<unknown>): RunOnApplication {
  const { engine } = context
  const query: RunOnApplication['query'] = (text, values) => context.query(text, values)
  return { query, schema: engine.schema, text: (sql) => engine.text(sql) }
}
