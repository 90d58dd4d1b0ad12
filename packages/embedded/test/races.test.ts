import { randomInt } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { accountFor } from '../src/account.ts'
import { findInstalledBinaries, prepareBinaries } from '../src/binaries.ts'
import { withDirectoryLock } from '../src/directory-lock.ts'
import { startEmbeddedPostgres } from '../src/index.ts'
import { layoutOf } from '../src/layout.ts'
import { choosePort } from '../src/port.ts'
import { startPostmaster, stopPostmaster } from '../src/postmaster.ts'
import { query } from './query.ts'
import {
  postmastersOf,
  processesIn,
  temporaryFolder,
  until,
  usedDirectory,
  watchdogsOf,
} from './temporary-folder.ts'
import { UserProcess } from './user-process.ts'

test('processes that start at the same instant on a new folder get one server', async () => {
  const directory = join(temporaryFolder(), 'a', 'b')
  const users = Array.from({ length: 4 }, () => new UserProcess({ directory, database: 'shop' }))
  const messages = await Promise.all(users.map((user) => user.nextMessage()))
  const urls = new Set(messages.map(({ url }) => url))
  expect([...urls]).toEqual([expect.stringContaining('postgres://')])
  expect(postmastersOf(directory)).toHaveLength(1)
  expect(watchdogsOf(directory)).toHaveLength(1)
  expect(await query([...urls][0]!, 'SELECT current_database()')).toBe('shop')

  await Promise.all(users.map((user) => user.stop()))
  expect(processesIn(directory)).toEqual([])
  await Promise.all(users.map((user) => user.ended()))
})

test('calls of one process at the same instant get one server', async () => {
  const directory = await usedDirectory()
  const servers = await Promise.all(Array.from({ length: 5 }, () => startEmbeddedPostgres({ directory })))
  expect(new Set(servers.map(({ url }) => url)).size).toBe(1)
  await Promise.all(servers.map((server) => server.stop()))
  expect(processesIn(directory)).toEqual([])
})

test('users that come and go at random always find a server that works', async () => {
  const directory = await usedDirectory()
  const comeAndGo = async () => {
    for (let round = 0; round < 6; round++) {
      const server = await startEmbeddedPostgres({ directory })
      expect(await query(server.url, 'SELECT 1')).toBe(1)
      if (randomInt(2) === 0) await query(server.url, `SELECT pg_sleep(${randomInt(50) / 1000})`)
      await server.stop()
    }
  }
  const processes = Array.from({ length: 3 }, () => new UserProcess({ directory }, 'leave at once'))
  await Promise.all([comeAndGo(), comeAndGo(), comeAndGo()])
  for (const user of processes) {
    expect((await user.nextMessage()).url).toMatch(/^postgres:/)
    await user.ended()
    expect(user.child.exitCode).toBe(0)
  }
  expect(processesIn(directory)).toEqual([])
})

test('a user that comes while the watchdog stops the server gets one that stays', async () => {
  const directory = await usedDirectory()
  const killed = new UserProcess({ directory })
  await killed.nextMessage()
  const log = () => readFileSync(join(directory, 'server.log'), 'utf8')
  const stopsBefore = log().split('received fast shutdown').length
  await killed.kill()
  await until('the watchdog acts', () => log().split('received fast shutdown').length > stopsBefore)

  const server = await startEmbeddedPostgres({ directory })
  const beats = new Set<number>()
  await until('the watchdog has looked again', async () => {
    beats.add(statSync(join(directory, 'watchdog')).mtimeMs)
    expect(await query(server.url, 'SELECT 1')).toBe(1)
    return beats.size > 3
  })
  await server.stop()
})

test('a port that is taken between its choice and the start is given up for another', async () => {
  const directory = await usedDirectory()
  await (await startEmbeddedPostgres({ directory })).stop()
  const thief = createServer()
  const taken = await new Promise<number>((resolve) => {
    thief.listen(0, '127.0.0.1', () => resolve((thief.address() as { port: number }).port))
  })
  const layout = layoutOf(directory)
  const account = accountFor(directory)
  const installed = findInstalledBinaries(process.platform, process.arch)
  const binaries = await prepareBinaries(installed, account, layout)
  const choices = [taken, taken]
  const postmaster = await startPostmaster({
    layout,
    account,
    binaries,
    settings: {},
    choosePort: async () => choices.shift() ?? choosePort(layout),
  })
  expect(choices).toEqual([])
  expect(postmaster.port).not.toBe(taken)
  await stopPostmaster(layout)
  await new Promise((resolve) => thief.close(resolve))
})

test('the lock admits one holder at a time, also while locks of dead holders are broken', async () => {
  const layout = layoutOf(temporaryFolder())
  const account = accountFor(layout.directory)
  let inside = 0
  let entries = 0
  const enter = () =>
    withDirectoryLock(layout, account, async () => {
      expect(++inside).toBe(1)
      await new Promise((resolve) => setImmediate(resolve))
      inside--
      entries++
    })
  const killed = new UserProcess({ directory: layout.directory }, 'leave at once')
  await killed.kill()
  await Promise.all(Array.from({ length: 60 }, enter))
  expect(entries).toBe(60)
})
