import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import pg from 'pg'
import { expect, test } from 'vitest'
import { accountFor } from '../src/account.ts'
import { type EmbeddedPostgresOptions, startEmbeddedPostgres } from '../src/index.ts'
import { startProgram } from '../src/server-program.ts'
import { query } from './query.ts'
import { processesIn, temporaryFolder, usedDirectory } from './temporary-folder.ts'

test('a new directory gets a durable server with UTF-8 and the locale C, which listens on 127.0.0.1 only', async () => {
  const directory = join(temporaryFolder(), 'made', 'on the way')
  const server = await startEmbeddedPostgres({ directory })

  const ask = (statement: string) => query(server.url, statement)
  expect(server.directory).toBe(directory)
  expect(server.url).toMatch(new RegExp(`^postgres://postgres:[\\w-]{32}@127.0.0.1:${server.port}/postgres$`))
  expect(await ask('SHOW server_version_num')).toMatch(/^18/)
  expect(await ask('SHOW server_encoding')).toBe('UTF8')
  expect(await ask("SELECT datcollate || datctype FROM pg_database WHERE datname = 'postgres'")).toBe('CC')
  expect(await ask('SHOW listen_addresses')).toBe('127.0.0.1')
  expect(await ask('SHOW unix_socket_directories')).toBe('')
  expect(await ask('SHOW fsync')).toBe('on')
  expect(await ask('SHOW synchronous_commit')).toBe('on')
  expect(await ask('SHOW max_connections')).toBe('100')
  expect(await ask('SHOW shared_buffers')).toBe('128MB')
  await server.stop()
})

test('nobody gets in without the password, which only the owner of the directory can read', async () => {
  const directory = join(temporaryFolder(), 'data')
  const server = await startEmbeddedPostgres({ directory })

  const password = new URL(server.url).password
  const without = server.url.replace(`:${password}@`, '@')
  const wrong = server.url.replace(password, `x${password.slice(1)}`)
  await expect(query(without, 'SELECT 1')).rejects.toThrow(/password/)
  await expect(query(wrong, 'SELECT 1')).rejects.toMatchObject({ code: '28P01' })
  expect(
    await query(
      server.url,
      "SELECT count(*)::int FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'",
    ),
  ).toBe(0)
  expect(readFileSync(join(directory, 'cluster', 'password'), 'utf8')).toBe(password)
  expect(statSync(join(directory, 'cluster', 'password')).mode & 0o777).toBe(0o600)
  expect(statSync(directory).mode & 0o777).toBe(0o700)
  await server.stop()
})

test('after the last stop no process is left, and the next start has the data and the same url', async () => {
  const directory = await usedDirectory()
  const first = await startEmbeddedPostgres({ directory, database: 'shop' })
  await query(first.url, 'CREATE TABLE kept AS SELECT 42 AS answer')
  await first.stop()
  expect(processesIn(directory)).toEqual([])

  const second = await startEmbeddedPostgres({ directory, database: 'shop' })
  expect(second.url).toBe(first.url)
  expect(await query(second.url, 'SELECT answer FROM kept')).toBe(42)
  await second.stop()
})

test('a stop ends sessions with open transactions, and can be called again at any time', async () => {
  const directory = await usedDirectory()
  const server = await startEmbeddedPostgres({ directory })
  const client = new pg.Client({ connectionString: server.url })
  const lost = new Promise((resolve) => client.on('error', resolve))
  await client.connect()
  await client.query('BEGIN; CREATE TABLE unfinished ()')

  await Promise.all([server.stop(), server.stop()])
  await lost
  await server.stop()
  expect(processesIn(directory)).toEqual([])
})

test('a second call attaches, may ask for another database, and keeps the server when the first leaves', async () => {
  const directory = await usedDirectory()
  const first = await startEmbeddedPostgres({ directory, settings: { work_mem: '5MB' } })
  const name = `naïve "quoted" 'name' 100% & [a+b];$,:@=`
  const second = await startEmbeddedPostgres({ directory, database: name, settings: { work_mem: '6MB' } })
  const third = await startEmbeddedPostgres({ directory: join(directory, '.', 'x', '..') })

  expect(third.url).toBe(first.url)
  expect(second.port).toBe(first.port)
  expect(await query(second.url, 'SELECT current_database()')).toBe(name)
  expect(await query(second.url, 'SHOW work_mem')).toBe('5MB')
  await first.stop()
  await first.stop()
  expect(await query(second.url, 'SELECT 1')).toBe(1)
  await second.stop()
  expect(await query(third.url, 'SELECT 1')).toBe(1)
  await third.stop()
  expect(processesIn(directory)).toEqual([])
})

test('settings of the caller override the defaults, for one run', async () => {
  const directory = await usedDirectory()
  const settings = { 'Max-Connections': '17', 'triphase.anything': "it's = fine" }
  const server = await startEmbeddedPostgres({ directory, settings })
  expect(await query(server.url, 'SHOW max_connections')).toBe('17')
  expect(await query(server.url, 'SHOW triphase.anything')).toBe("it's = fine")
  await server.stop()
  const next = await startEmbeddedPostgres({ directory })
  expect(await query(next.url, 'SHOW max_connections')).toBe('100')
  await next.stop()
})

test('a setting that Postgres refuses is named, leaves nothing running, and is not remembered', async () => {
  const directory = temporaryFolder()
  const start = startEmbeddedPostgres({ directory, settings: { no_such_setting: '1' } })
  await expect(start).rejects.toMatchObject({
    name: 'EmbeddedPostgresError',
    code: 'START_FAILED',
    message: expect.stringMatching(/unrecognized configuration parameter "no_such_setting"/),
  })
  expect(processesIn(directory)).toEqual([])
  const server = await startEmbeddedPostgres({ directory })
  await server.stop()
})

test.for<[string, object]>([
  ['no directory', { directory: '' }],
  ['a directory with a line break', { directory: '/tmp/a\nb' }],
  ['an empty database', { database: '' }],
  ['a database of 64 bytes', { database: 'ä'.repeat(32) }],
  ['a database that cannot be part of an url', { database: 'a?b' }],
  ['a port of its own', { settings: { port: '5432' } }],
  ['other addresses, in another spelling', { settings: { 'Listen-Addresses': '*' } }],
  ['a setting that would be two', { settings: { 'work_mem=1MB -c fsync': 'off' } }],
  ['a number as a setting', { settings: { max_connections: 5 } }],
  ['an option that does not exist', { port: 5432 }],
])('options that cannot work are refused before anything is made: %s', async ([, wrong]) => {
  const directory = join(temporaryFolder(), 'data')
  const start = startEmbeddedPostgres({ directory, ...wrong } as EmbeddedPostgresOptions)
  await expect(start).rejects.toMatchObject({ code: 'INVALID_OPTIONS' })
  expect(existsSync(directory)).toBe(false)
})

test('a directory with other content is refused and not touched', async () => {
  const directory = temporaryFolder()
  mkdirSync(join(directory, 'holiday'))
  writeFileSync(join(directory, 'PG_VERSION'), '18')
  await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
    code: 'DIRECTORY_NOT_OURS',
    message: expect.stringContaining('holiday'),
  })
  expect(readdirSync(directory).sort()).toEqual(['PG_VERSION', 'holiday'])
  expect(statSync(directory).mode & 0o777).toBe(0o755)
})

test.skipIf(process.platform !== 'linux')(
  'a directory that cannot be made is an error that names it',
  async () => {
    for (const directory of ['/proc/nowhere', '/proc/nowhere/below/it']) {
      await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
        code: 'DIRECTORY_NOT_WRITABLE',
        message: expect.stringContaining(directory),
      })
    }
  },
)

test('a file where the directory should be is an error that names it', async () => {
  const file = join(temporaryFolder(), 'file')
  writeFileSync(file, 'precious')
  for (const directory of [file, join(file, 'below')]) {
    await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
      code: 'DIRECTORY_NOT_WRITABLE',
      message: expect.stringContaining(directory),
      cause: expect.any(Error),
    })
  }
  expect(readFileSync(file, 'utf8')).toBe('precious')
})

test('data of another major version is refused and kept', async () => {
  const directory = await usedDirectory()
  const server = await startEmbeddedPostgres({ directory })
  await server.stop()
  writeFileSync(join(directory, 'cluster', 'data', 'PG_VERSION'), '17\n')
  await expect(startEmbeddedPostgres({ directory })).rejects.toMatchObject({
    code: 'DATA_VERSION_MISMATCH',
    message: expect.stringContaining('17'),
  })
  writeFileSync(join(directory, 'cluster', 'data', 'PG_VERSION'), '18\n')
  await (await startEmbeddedPostgres({ directory })).stop()
})

test('the port of the last time is given up when something else has it', async () => {
  const directory = await usedDirectory()
  const first = await startEmbeddedPostgres({ directory })
  await first.stop()
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(first.port, '127.0.0.1', resolve))
  const second = await startEmbeddedPostgres({ directory })
  expect(second.port).not.toBe(first.port)
  expect(await query(second.url, 'SELECT 1')).toBe(1)
  await second.stop()
  await new Promise((resolve) => other.close(resolve))
})

test('a stop after the directory was deleted ends the server too', async () => {
  const directory = join(temporaryFolder(), 'data')
  const server = await startEmbeddedPostgres({ directory })
  rmSync(directory, { recursive: true, maxRetries: 10 })
  await server.stop()
})

test('a log that has grown large is put aside, once', async () => {
  const directory = await usedDirectory()
  const log = join(directory, 'server.log')
  for (const mark of ['first', 'second']) {
    writeFileSync(log, `${mark}${'.'.repeat(11_000_000)}`)
    await (await startEmbeddedPostgres({ directory })).stop()
    expect(statSync(log).size).toBeLessThan(100_000)
    expect(readFileSync(`${log}.previous`, 'utf8').slice(0, mark.length)).toBe(mark)
  }
})

test.for<[string, string, number, string, RegExp]>([
  [
    'without the C library it was made for',
    '#!/no/such/loader',
    0o755,
    'UNSUPPORTED_PLATFORM',
    /glibc.*DATABASE_URL/,
  ],
  ['that may not be executed', '#!/bin/sh', 0o644, 'START_FAILED', /noexec/],
])('a program %s is an error that says so', async ([, content, mode, code, message]) => {
  const folder = temporaryFolder()
  const program = join(folder, 'postgres')
  writeFileSync(program, content, { mode })
  const start = startProgram({
    program,
    arguments: [],
    data: folder,
    account: accountFor(folder),
    stdio: 'ignore',
  })
  await expect(start).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
})
