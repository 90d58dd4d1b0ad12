import type { FileSweep } from '@triphase/files'
import type { Pool } from 'pg'
import type { Sweep } from 'triphase'
import { EXIT, type ExitCode } from '../exit-codes.ts'
import { Problem } from '../problem.ts'
import type { SweepContext } from './verb.ts'

type Files = typeof import('@triphase/files')

/** What a verb for files works with. */
export interface FileParts {
  readonly files: Files
  readonly sweep: FileSweep
  readonly pool: Pool
  /** Fires at the first SIGINT or SIGTERM; what is half done is taken back. */
  readonly signal: AbortSignal
}

/**
 * Runs a verb of a sweep over a file, until it is done or a signal ends it.
 *
 * @throws {Problem} `USAGE`: the sweep goes over no file; `FILES_MISSING`: `@triphase/files`, which most do not need, is not
 *   there; `CONFIG_NO_POOL`.
 */
export async function withFiles(
  { sweep, pool, name }: SweepContext,
  work: (parts: FileParts) => Promise<ExitCode>,
): Promise<ExitCode> {
  // Before the package is asked for, which a sweep over a table does without.
  if (!isFileSweep(sweep)) {
    throw new Problem(
      EXIT.usage,
      'USAGE',
      `Sweep ${name} goes over a table of yours, not over a file: those are defined with defineFileSweep.`,
    )
  }
  if (!isPool(pool)) {
    throw new Problem(
      EXIT.config,
      'CONFIG_NO_POOL',
      `A file goes into the application's database over a pool's settings, and the config file exports none. Let it have: export const pool = new pg.Pool({ … }).`,
    )
  }
  const files = await installedFiles()
  const stopped = new AbortController()
  let code: ExitCode = EXIT.ok
  const stop = (signal: NodeJS.Signals) => {
    code = signal === 'SIGINT' ? EXIT.interrupted : EXIT.terminated
    stopped.abort()
  }
  process.once('SIGINT', stop).once('SIGTERM', stop)
  try {
    return await work({ files, sweep, pool, signal: stopped.signal })
  } catch (error) {
    if (!stopped.signal.aborted) throw error
    return code
  } finally {
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

async function installedFiles(): Promise<Files> {
  try {
    return await import('@triphase/files')
  } catch (cause) {
    throw new Problem(
      EXIT.config,
      'FILES_MISSING',
      'Sweeps over files need @triphase/files, and it cannot be loaded: npm install @triphase/files.',
      { cause },
    )
  }
}

/** By what it has, as `isFileSweep` of the package tells. */
export function isFileSweep(sweep: Sweep): sweep is FileSweep {
  return 'file' in sweep
}

/** By what it has: the application may use a copy of pg of its own. */
function isPool(value: unknown): value is Pool {
  return typeof value === 'object' && value !== null && 'options' in value && 'connect' in value
}
