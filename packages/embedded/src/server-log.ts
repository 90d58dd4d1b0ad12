import { type FileHandle, open, readFile, rename, stat } from 'node:fs/promises'
import type { Account } from './account.ts'
import { ignoreCode } from './errors.ts'
import type { Layout } from './layout.ts'

const ROTATE_BYTES = 10_000_000

/** To append to, and to hand to the server as its output. */
export async function openLog(layout: Layout, account: Account): Promise<FileHandle> {
  const log = await open(layout.log, 'a', 0o600)
  await account.give(layout.log)
  return log
}

/** Called when no server runs. One earlier log is kept. */
export async function rotateLog(layout: Layout): Promise<void> {
  const found = await stat(layout.log).catch(ignoreCode('ENOENT'))
  if ((found?.size ?? 0) > ROTATE_BYTES) await rename(layout.log, `${layout.log}.previous`)
}

export async function readLogFrom(layout: Layout, offset: number): Promise<string> {
  const log = await readFile(layout.log)
  return log.subarray(offset).toString('utf8').trim()
}
