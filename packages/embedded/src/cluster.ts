import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Account } from './account.ts'
import type { Binaries } from './binaries.ts'
import { diskFull, EmbeddedPostgresError } from './errors.ts'
import type { Layout } from './layout.ts'
import { dataFolderFor, startProgram } from './server-program.ts'
import { SUPERUSER } from './simple-query.ts'
import { unfinishedName } from './unfinished.ts'

/** The major version of the data that the shipped binaries read and write. */
const POSTGRES_MAJOR = '18'

/** Makes the cluster unless it exists. Killed half-way, it leaves only a folder that the next start removes. */
export async function ensureCluster(layout: Layout, binaries: Binaries, account: Account): Promise<void> {
  if (existsSync(layout.cluster)) return assertVersion(layout)
  const unfinished = unfinishedName(layout.cluster)
  const data = join(unfinished, 'data')
  const password = join(unfinished, 'password')
  try {
    for (const folder of [unfinished, data]) {
      await mkdir(folder, { mode: 0o700 })
      await account.give(folder)
    }
    await writeFile(password, randomBytes(24).toString('base64url'), { mode: 0o600, flush: true })
    await account.give(password)
    await initialise(data, binaries, account)
    await flushFolder(unfinished)
    await rename(unfinished, layout.cluster)
    await flushFolder(layout.directory)
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true, maxRetries: 5 })
    throw error
  }
}

export async function readPassword(layout: Layout): Promise<string> {
  return (await readFile(layout.password, 'utf8')).trim()
}

async function initialise(data: string, binaries: Binaries, account: Account): Promise<void> {
  const folder = dataFolderFor(account, data)
  const child = await startProgram({
    program: binaries.initdb,
    arguments: [
      `--pgdata=${folder}`,
      `--pwfile=${folder}/../password`,
      `--username=${SUPERUSER}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      '--locale=C',
      '--no-instructions',
    ],
    data,
    account,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const end = new Promise<string>((resolve) => {
    child.once('close', (code, signal) => resolve(String(code ?? signal)))
  })
  const [status, output, problems] = await Promise.all([end, text(child.stdout!), text(child.stderr!)])
  if (status !== '0') throw initialisationFailed(data, status, `${output}${problems}`.trim())
}

function initialisationFailed(data: string, status: string, output: string): EmbeddedPostgresError {
  const full = output.split('\n').filter((line) => line.includes('No space left on device'))
  if (full.length > 0) return diskFull(data, full.join('\n'))
  const advice = output.includes('could not look up effective user ID')
    ? 'Postgres needs a user with an entry in /etc/passwd: add one for this user id, or set DATABASE_URL to a Postgres of your own.'
    : 'Its last words follow; if they do not help, set DATABASE_URL to a Postgres of your own.'
  return new EmbeddedPostgresError('START_FAILED', `initdb failed (${status}). ${advice}\n${output}`)
}

async function assertVersion(layout: Layout): Promise<void> {
  const found = (await readFile(join(layout.data, 'PG_VERSION'), 'utf8')).trim()
  if (found === POSTGRES_MAJOR) return
  throw new EmbeddedPostgresError(
    'DATA_VERSION_MISMATCH',
    `The data in ${layout.data} was written by PostgreSQL ${found} and these binaries are PostgreSQL ${POSTGRES_MAJOR}. ` +
      'Dump it with the version of this package that wrote it, or choose another directory.',
  )
}

/** Makes the rename itself survive a power cut. */
async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
