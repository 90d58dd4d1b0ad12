import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { onTestFinished } from 'vitest'

/** How a test cleans up: `onTestFinished`, which concurrent tests must take from their own context. */
export type WhenFinished = (cleanUp: () => Promise<void> | void) => void

/** A new folder that is removed after the test. Other users may look into it. */
export async function temporaryFolder(whenFinished: WhenFinished = onTestFinished): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'scout-test-'))
  await chmod(folder, 0o755)
  whenFinished(() => rm(folder, { recursive: true, force: true }))
  return folder
}
