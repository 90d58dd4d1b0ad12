import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import pg from 'pg'
import { expect, test } from 'vitest'
import { startEmbeddedPostgres } from '../src/index.ts'
import { identityOf } from '../src/process-identity.ts'
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

function postmasterPid(directory: string): number {
  return Number(readFileSync(join(directory, 'cluster', 'data', 'postmaster.pid'), 'utf8').split('\n')[0])
}

test('a server that was killed is started again by the next call, under the same url and with the data', async () => {
  const directory = await usedDirectory()
  const first = await startEmbeddedPostgres({ directory })
  const client = new pg.Client({ connectionString: first.url })
  client.on('error', () => {})
  await client.connect()
  await client.query('CREATE TABLE kept AS SELECT 42 AS answer')
  process.kill(postmasterPid(directory), 'SIGKILL')

  const second = await startEmbeddedPostgres({ directory })
  expect(second.url).toBe(first.url)
  expect(await query(first.url, 'SELECT answer FROM kept')).toBe(42)
  await first.stop()
  expect(await query(second.url, 'SELECT 1')).toBe(1)
  await second.stop()
  expect(processesIn(directory)).toEqual([])
})

test('a start waits for the survivors of a killed server, whose memory Postgres must not take over', async () => {
  const directory = await usedDirectory()
  const first = await startEmbeddedPostgres({ directory })
  const client = new pg.Client({ connectionString: first.url })
  client.on('error', () => {})
  await client.connect()
  // A process that computes looks for the death of its parent only between statements.
  const busy = client.query(
    'DO $$ BEGIN FOR i IN 1..40 LOOP PERFORM sum(x) FROM generate_series(1, 300000) x; END LOOP; END $$',
  )
  busy.catch(() => {})
  await until('the query runs', async () => {
    const running = "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    return (await query(first.url, running)) === 1
  })
  process.kill(postmasterPid(directory), 'SIGKILL')

  const second = await startEmbeddedPostgres({ directory })
  expect(await query(second.url, 'SELECT 1')).toBe(1)
  expect(readFileSync(join(directory, 'server.log'), 'utf8')).toContain('pre-existing shared memory block')
  await client.end()
  await first.stop()
  await second.stop()
})

test('a stop after the server was killed is no error', async () => {
  const directory = await usedDirectory()
  const server = await startEmbeddedPostgres({ directory })
  process.kill(postmasterPid(directory), 'SIGKILL')
  await server.stop()
  await until('nothing runs', () => processesIn(directory).length === 0)
})

test('a postmaster.pid with the pid of a program that is not this server does not keep it from starting', async () => {
  const directory = await usedDirectory()
  const owner = await startEmbeddedPostgres({ directory })
  await owner.stop()
  const data = join(directory, 'cluster', 'data')
  const { uid, gid } = statSync(data)
  // Runs as the account of the server: only then Postgres itself would believe in the pid.
  const identity = process.geteuid?.() === 0 ? { uid, gid } : {}
  const stranger = spawn('sleep', ['60'], { stdio: 'ignore', ...identity })
  await once(stranger, 'spawn')
  const pidFile = [stranger.pid, data, 1, owner.port, '', '127.0.0.1', '  1234567   12345678', 'ready', '']
  writeFileSync(join(data, 'postmaster.pid'), pidFile.join('\n'))

  const server = await startEmbeddedPostgres({ directory })
  expect(postmasterPid(directory)).not.toBe(stranger.pid)
  expect(await query(server.url, 'SELECT 1')).toBe(1)
  await server.stop()
  expect(stranger.exitCode).toBe(null)
  stranger.kill()
})

test('a server of another directory with the same pid is not taken for this one', async () => {
  const [one, other] = [await usedDirectory(), await usedDirectory()]
  const first = await startEmbeddedPostgres({ directory: one })
  const second = await startEmbeddedPostgres({ directory: other })
  await second.stop()
  const pidFile = readFileSync(join(one, 'cluster', 'data', 'postmaster.pid'), 'utf8')
  writeFileSync(join(other, 'cluster', 'data', 'postmaster.pid'), pidFile)

  const again = await startEmbeddedPostgres({ directory: other })
  expect(again.url).not.toBe(first.url)
  expect(await query(again.url, 'SHOW data_directory')).toContain(other)
  await again.stop()
  expect(await query(first.url, 'SELECT 1')).toBe(1)
  await first.stop()
})

test('an empty postmaster.pid, as a full disk leaves it, does not keep the server from starting', async () => {
  const directory = await usedDirectory()
  await (await startEmbeddedPostgres({ directory })).stop()
  const pidFile = join(directory, 'cluster', 'data', 'postmaster.pid')
  writeFileSync(pidFile, '')
  utimesSync(pidFile, 1, 1)
  await (await startEmbeddedPostgres({ directory })).stop()
})

test('killed in the middle of initdb: the next start begins anew and leaves nothing of the first', async () => {
  const directory = temporaryFolder()
  const killed = new UserProcess({ directory })
  const unfinished = () => readdirSync(directory).find((name) => name.startsWith('cluster.'))
  await until('initdb writes', () => {
    const name = unfinished()
    return name !== undefined && existsSync(join(directory, name, 'data', 'base'))
  })
  await killed.kill()
  expect(unfinished()).toBeDefined()
  expect(existsSync(join(directory, 'cluster'))).toBe(false)

  const server = await startEmbeddedPostgres({ directory })
  expect(await query(server.url, 'SELECT 1')).toBe(1)
  expect(unfinished()).toBeUndefined()
  await server.stop()
  // The watchdog ends a moment after the server.
  const left = () => readdirSync(directory).filter((name) => /^(lock|cluster)\./.test(name))
  await expect.poll(left, { timeout: 10_000 }).toEqual([])
})

test('a watchdog that is ended while it waits for the lock leaves nothing of that', async () => {
  const directory = await usedDirectory()
  const server = await startEmbeddedPostgres({ directory })
  const [watchdog] = watchdogsOf(directory)
  const prepared = join(directory, `lock.${identityOf(watchdog!.pid)}-0123456789ab`)
  mkdirSync(prepared)
  await server.stop()
  expect(existsSync(prepared)).toBe(false)
})

test('killed at any moment of a start: the next start works, and otherwise nothing stays', async () => {
  const directory = await usedDirectory()
  await (await startEmbeddedPostgres({ directory })).stop()
  for (const name of ['lock', 'users', 'postmaster.pid']) {
    const user = new UserProcess({ directory })
    await until(`the start has got to ${name}`, () => {
      if (name === 'postmaster.pid') return existsSync(join(directory, 'cluster', 'data', name))
      return readdirSync(join(directory, name)).length > 0
    })
    await user.kill()
    const server = await startEmbeddedPostgres({ directory })
    expect(await query(server.url, 'SELECT 1')).toBe(1)
    await server.stop()
    // Killed between starting a watchdog and noting it down, it leaves one that nobody knows, but which ends by itself.
    await until('everything has ended', () => processesIn(directory).length === 0)
  }
})

test('one user is killed and the other keeps the server; all are killed and the watchdog stops it', async () => {
  const directory = await usedDirectory()
  const [first, second] = [new UserProcess({ directory }), new UserProcess({ directory })]
  const url = (await first.nextMessage()).url!
  expect((await second.nextMessage()).url).toBe(url)
  await first.kill()
  const watcher = await startEmbeddedPostgres({ directory })
  await watcher.stop()
  expect(await query(url, 'SELECT 1')).toBe(1)
  expect(readdirSync(join(directory, 'users'))).toHaveLength(1)

  await second.kill()
  await until('the server is stopped', () => postmastersOf(directory).length === 0)
  expect(readFileSync(join(directory, 'server.log'), 'utf8')).toMatch(/database system is shut down\s*$/)
  expect(existsSync(join(directory, 'cluster', 'data', 'postmaster.pid'))).toBe(false)
  await until('the watchdog ends too', () => processesIn(directory).length === 0)
  expect(existsSync(join(directory, 'watchdog'))).toBe(false)
})

test('a process that ends without a stop is not kept from ending, and its server is stopped', async () => {
  const directory = await usedDirectory()
  const forgetful = new UserProcess({ directory }, 'forget at once', { stdio: ['ignore', 'pipe', 'pipe'] })
  await forgetful.nextMessage()
  // Nobody holds its output open either: "close" comes only when the last holder has gone.
  const [status] = await once(forgetful.child, 'close')
  expect(status).toBe(0)
  await until('the server is stopped', () => postmastersOf(directory).length === 0)
})

test.runIf(process.platform === 'linux')(
  "the watchdog has none of the caller's options for Node",
  async () => {
    const directory = await usedDirectory()
    const env = { ...process.env, NODE_OPTIONS: '--title=debugged', MARK: 'kept' }
    const user = new UserProcess({ directory }, 'stay', { env })
    await user.nextMessage()
    const environment = readFileSync(`/proc/${watchdogsOf(directory)[0]!.pid}/environ`, 'utf8')
    expect(environment).toContain('MARK=kept')
    expect(environment).not.toContain('NODE_OPTIONS')
    await user.stop()
    await user.ended()
  },
)

test('a watchdog that was killed is replaced by the next start', async () => {
  const directory = await usedDirectory()
  const user = new UserProcess({ directory })
  await user.nextMessage()
  process.kill(watchdogsOf(directory)[0]!.pid, 'SIGKILL')
  await until('the watchdog is dead', () => watchdogsOf(directory).length === 0)
  const server = await startEmbeddedPostgres({ directory })
  expect(watchdogsOf(directory)).toHaveLength(1)
  await server.stop()
  await user.kill()
  await until('the server is stopped', () => postmastersOf(directory).length === 0)
})

test('the watchdog is not fooled by a user whose pid now belongs to another process', async () => {
  const directory = await usedDirectory()
  const user = new UserProcess({ directory })
  await user.nextMessage()
  const [pid, birth] = identityOf(process.pid).split('-')
  const reused = `${pid}-1${birth}-abcdefabcdef`
  writeFileSync(join(directory, 'users', reused), '')
  await user.kill()
  await until('the server is stopped', () => postmastersOf(directory).length === 0)
})

test('a Ctrl-C, which goes to every process of the terminal, ends its user and not the server', async () => {
  const directory = await usedDirectory()
  const user = new UserProcess({ directory }, 'stay', { detached: true })
  const { url } = await user.nextMessage()
  const other = await startEmbeddedPostgres({ directory })
  const pid = postmasterPid(directory)
  process.kill(-user.child.pid!, 'SIGINT')
  await user.ended()
  expect(user.child.signalCode).toBe('SIGINT')
  expect(await query(url!, 'SELECT 1')).toBe(1)
  expect(watchdogsOf(directory)).toHaveLength(1)
  expect(postmasterPid(directory)).toBe(pid)
  await other.stop()
})

test('a lock and users of killed processes are not in the way, even of a process with a reused pid', async () => {
  const directory = await usedDirectory()
  await (await startEmbeddedPostgres({ directory })).stop()
  const [pid, birth] = identityOf(process.pid).split('-')
  writeFileSync(join(directory, 'lock', `${pid}-1${birth}-abcdefabcdef`), '')
  mkdirSync(join(directory, `lock.${pid}-1${birth}-abcdefabcdef`))
  mkdirSync(join(directory, `cluster.${pid}-1${birth}-abcdefabcdef`))
  writeFileSync(join(directory, 'watchdog'), `${pid}-1${birth}`)
  const server = await startEmbeddedPostgres({ directory })
  expect(readdirSync(directory).filter((name) => name.includes('abcdef'))).toEqual([])
  expect(watchdogsOf(directory)).toHaveLength(1)
  await server.stop()
  expect(dirname(server.directory)).toBe(dirname(directory))
})
