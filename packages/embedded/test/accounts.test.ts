import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { accountFor } from '../src/account.ts'
import { findInstalledBinaries, prepareBinaries } from '../src/binaries.ts'
import { startEmbeddedPostgres } from '../src/index.ts'
import { layoutOf } from '../src/layout.ts'
import { ordinaryUser } from './ordinary-user.ts'
import { query } from './query.ts'
import { postmastersOf, processesIn, temporaryFolder, until } from './temporary-folder.ts'
import { program, UserProcess } from './user-process.ts'

// Most of this can only be seen by a process that may become other users. Everything else is tested as whoever runs it.
const asRoot = test.runIf(process.geteuid?.() === 0)
const onLinuxAsRoot = test.runIf(process.geteuid?.() === 0 && process.platform === 'linux')
const installed = findInstalledBinaries(process.platform, process.arch)

/** The folder of an ordinary user, closed to others, and how to start a process as that user. */
function home(): { folder: string; uid: number; as: { uid: number; gid: number; env: NodeJS.ProcessEnv } } {
  const { uid, gid } = ordinaryUser()
  const folder = join(temporaryFolder(), 'home')
  mkdirSync(folder, { mode: 0o700 })
  chownSync(folder, uid, gid)
  return { folder, uid, as: { uid, gid, env: { HOME: folder } } }
}

/** A folder that only root can enter, as `/root` is. */
function closedFolder(): string {
  const folder = temporaryFolder()
  chmodSync(folder, 0o700)
  return folder
}

function ownersIn(folder: string): Set<number> {
  const found = execFileSync('find', [folder, '-exec', 'stat', '-c', '%u', '{}', '+'], { encoding: 'utf8' })
  return new Set(found.trim().split('\n').map(Number))
}

onLinuxAsRoot('an ordinary user works in its own closed folder', async () => {
  const { folder, uid, as } = home()
  const user = new UserProcess({ directory: join(folder, 'data') }, 'stay', as)
  const { url } = await user.nextMessage()
  expect(await query(url!, 'SELECT 1')).toBe(1)
  expect(ownersIn(folder)).toEqual(new Set([uid]))
  expect(await user.stop()).toEqual({ stopped: true })
  expect(processesIn(folder)).toEqual([])
  await user.ended()
})

asRoot('an ordinary user is told whom a directory belongs to that root made', async () => {
  const { as } = home()
  const directory = join(temporaryFolder(), 'data')
  await (await startEmbeddedPostgres({ directory })).stop()
  const user = new UserProcess({ directory }, 'stay', as)
  expect(await user.nextMessage()).toMatchObject({ code: 'DIRECTORY_NOT_WRITABLE' })
  await user.ended()
})

asRoot('a folder in which the user may not write is named', async () => {
  const { as } = home()
  const directory = join(temporaryFolder(), 'data')
  const user = new UserProcess({ directory }, 'stay', as)
  const message = expect.stringContaining(directory)
  expect(await user.nextMessage()).toMatchObject({ code: 'DIRECTORY_NOT_WRITABLE', message })
  await user.ended()
})

asRoot('a user id without an entry in /etc/passwd is told what Postgres misses', async () => {
  const folder = temporaryFolder()
  chownSync(folder, 4242, 4242)
  const user = new UserProcess({ directory: join(folder, 'data') }, 'stay', { uid: 4242, gid: 4242 })
  const message = expect.stringContaining('/etc/passwd')
  expect(await user.nextMessage()).toMatchObject({ code: 'START_FAILED', message })
  await user.ended()
})

asRoot('as root the server runs as nobody, who owns the data and nothing above it', async () => {
  const folder = temporaryFolder()
  const directory = join(folder, 'made', 'data')
  const server = await startEmbeddedPostgres({ directory })
  const [postmaster] = postmastersOf(folder)
  const owner = execFileSync('ps', ['-o', 'uid=', '-p', String(postmaster!.pid)], { encoding: 'utf8' })
  expect(Number(owner)).toBe(65_534)
  expect(ownersIn(directory)).toEqual(new Set([65_534]))
  expect(statSync(join(folder, 'made')).uid).toBe(0)
  await server.stop()
})

onLinuxAsRoot(
  'as root in a folder that only root can enter, the data still lies in the given directory',
  async () => {
    const folder = closedFolder()
    const directory = join(folder, 'data')
    const first = await startEmbeddedPostgres({ directory, database: 'shop' })
    await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer')
    const attached = await startEmbeddedPostgres({ directory, database: 'shop' })
    expect(attached.url).toBe(first.url)
    process.kill(postmastersOf(folder)[0]!.pid, 'SIGKILL')
    const recovered = await startEmbeddedPostgres({ directory, database: 'shop' })
    expect(await query(recovered.url, 'SELECT answer FROM kept')).toBe(42)
    for (const server of [first, attached, recovered]) await server.stop()
    expect(processesIn(folder)).toEqual([])
  },
)

onLinuxAsRoot("as root in somebody's folder the server and all files are that person's", async () => {
  const { folder, uid, as } = home()
  const directory = join(folder, 'project', 'data')
  const byRoot = await startEmbeddedPostgres({ directory })
  expect(ownersIn(folder)).toEqual(new Set([uid]))

  const user = new UserProcess({ directory }, 'stay', as)
  expect((await user.nextMessage()).url).toBe(byRoot.url)
  await byRoot.stop()
  expect(await query(byRoot.url, 'SELECT 1')).toBe(1)
  // The watchdog is root's, and this user may not end it: it has to notice that there is nothing left to watch.
  expect(await user.stop()).toEqual({ stopped: true })
  expect(postmastersOf(folder)).toEqual([])
  await until('the watchdog ends by itself', () => processesIn(folder).length === 0)
  await user.ended()

  const again = new UserProcess({ directory }, 'leave at once', as)
  expect((await again.nextMessage()).url).toBe(byRoot.url)
  await again.ended()
})

onLinuxAsRoot(
  'binaries out of reach are copied to where the server gets at them, and mended there',
  async () => {
    const packageRoot = join(closedFolder(), 'package')
    execFileSync('cp', ['-a', installed.packageRoot, packageRoot])
    const hidden = { packageRoot, version: `test-${process.pid}` }
    const copy = `/var/tmp/triphase-binaries-${hidden.version}`
    onTestFinished(() => rmSync(copy, { recursive: true, force: true }))
    const closed = join(closedFolder(), 'data')
    mkdirSync(closed)
    const prepare = () => prepareBinaries(hidden, accountFor(closed), layoutOf(closed))

    const both = await Promise.all([prepare(), prepare()])
    const run = () => spawnSync(both[0]!.initdb, ['--version'], { uid: 65_534, gid: 65_534 }).status
    expect(both.map(({ initdb }) => initdb)).toEqual([
      join(copy, 'bin', 'initdb'),
      join(copy, 'bin', 'initdb'),
    ])
    expect(run()).toBe(0)
    rmSync(join(copy, 'bin', 'postgres'))
    await prepare()
    expect(existsSync(join(copy, 'bin', 'postgres'))).toBe(true)

    rmSync(copy, { recursive: true })
    mkdirSync(copy)
    chownSync(copy, ordinaryUser().uid, 0)
    await expect(prepare()).rejects.toMatchObject({
      code: 'START_FAILED',
      message: expect.stringContaining(copy),
    })
  },
)

onLinuxAsRoot(
  'a full disk is called by its name, and the start works once there is space',
  async ({ skip }) => {
    const mount = join(temporaryFolder(), 'small')
    mkdirSync(mount)
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=30m', 'tmpfs', mount]).status !== 0)
      skip('may not mount')
    onTestFinished(() => void execFileSync('umount', ['-l', mount]))
    chmodSync(mount, 0o755)
    const directory = join(mount, 'data')
    await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
      code: 'DISK_FULL',
      // A sentence, and of all that initdb has to say what is about the disk.
      message: expect.stringMatching(
        /^The disk that holds .* is full\..*\n([^\n]*No space left on device\n?)+$/,
      ),
    })
    expect(processesIn(mount)).toEqual([])
    execFileSync('mount', ['-o', 'remount,size=100m', mount])
    const server = await startEmbeddedPostgres({ directory })
    await server.stop()
  },
)

onLinuxAsRoot(
  'a directory that another container uses is refused, until that one has ended',
  async ({ skip }) => {
    const directory = join(temporaryFolder(), 'data')
    const unshare = ['--pid', '--ipc', '--fork', '--kill-child', '--mount-proc']
    if (spawnSync('unshare', [...unshare, 'true']).status !== 0) skip('may not make a pid namespace')
    const command = ['unshare', ...unshare, process.execPath, '--conditions=triphase-source', program]
    const container = new UserProcess({ directory }, 'stay', {}, command)
    const { url } = await container.nextMessage()
    await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({ code: 'DIRECTORY_IN_USE' })
    expect(await query(url!, 'SELECT 1')).toBe(1)

    // Everything in it is killed with it, as when a container is: only the silence of its watchdog says so.
    await container.kill()
    const longAgo = new Date(Date.now() - 60_000)
    utimesSync(join(directory, 'watchdog'), longAgo, longAgo)
    const server = await startEmbeddedPostgres({ directory })
    expect(await query(server.url, 'SELECT 1')).toBe(1)
    expect(readFileSync(join(directory, 'server.log'), 'utf8')).toContain('was interrupted')
    await server.stop()
  },
)
