import { migrationSql, SCHEMA_VERSION } from 'triphase'
import { afterAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { testDatabaseUrl } from '../../triphase/test/support/database-url.ts'
import { serverAddress, startFaultProxy } from '../../triphase/test/support/fault-proxy.ts'
import { eventually } from '../../triphase/test/support/processes.ts'
import { EXIT } from '../src/index.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('database', { more: 'misfits' })
const OWN_SCHEMA = 'cli_database_own'
const dropOwn = () => scene.pool.query(`DROP SCHEMA IF EXISTS ${OWN_SCHEMA} CASCADE`)
beforeEach(() => scene.fill(20))

describe('a database that', () => {
  test.each([
    ['is away', () => 'postgres://me:hunter2@127.0.0.1:1/app', 'CONNECTION_FAILED'],
    [
      'refuses the login',
      () => testDatabaseUrl().replace(/\/\/[^@]*@/, '//nobody_there:hunter2@'),
      'LOGIN_REFUSED',
    ],
  ])('%s is told without its password', async (_, url, error) => {
    for (const args of [
      ['migrate'],
      ['work'],
      ['sweep', 'describe', 'run'],
      ['sweep', 'describe', 'status'],
    ]) {
      const env = { TEST_URL: url(), TEST_DIRECT_URL: url() }
      const { code, stdout, stderr } = await scene.start([...args, '--json', '--debug'], { env }).ended
      expect(JSON.parse(stderr.trimEnd().split('\n').at(-1) ?? '')).toMatchObject({ error: { code: error } })
      expect(`${stdout}${stderr}`).not.toContain('hunter2')
      expect(code).toBe(EXIT.database)
    }
  })

  test('has no schema is to be migrated', async () => {
    await dropOwn()
    const env = { TEST_SCHEMA: OWN_SCHEMA }
    const { code, stderr } = await scene.start(['work'], { env }).ended
    expect(stderr).toMatch(
      /^MIGRATION_NEEDED: .* Run triphase migrate, or run the SQL that triphase migrate --print prints\.\n$/m,
    )
    expect(code).toBe(EXIT.database)
  })

  test('says what nobody expected is told so', async () => {
    const { code, stdout, stderr } = await scene.run('sweep', 'broken', 'plan')
    expect(stderr).toMatch(/^42703: .*no_such_column/)
    expect([code, stdout]).toEqual([EXIT.unexpected, ''])
  })

  test('has not the table that the sweep wants, or another one, is told what is missing', async () => {
    const refused = async (message: RegExp) => {
      for (const verb of ['run', 'plan']) {
        const { code, stderr } = await scene.run('sweep', 'misfit', verb)
        expect(stderr).toMatch(message)
        expect(code).toBe(EXIT.database)
      }
    }
    await refused(/^SWEEP_TABLE: .*no table .* Create it, or let this role see its schema\.\n$/)
    await scene.pool.query(`CREATE TABLE ${scene.table}_missing (id int PRIMARY KEY)`)
    onTestFinished(async () => {
      await scene.pool.query(`DROP TABLE ${scene.table}_missing`)
    })
    await refused(/^SWEEP_TABLE: .*triphase sweep misfit migration prints what is missing\.\n$/)
  })

  test('goes away while a run is followed with --json is told in JSON, and waited for', async () => {
    const held = scene.api.hold()
    const running = scene.start(['sweep', 'describe', 'run'])
    await eventually(() => scene.api.calls > 0)
    const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
    onTestFinished(() => proxy.close())
    const url = proxy.url(testDatabaseUrl())
    const env = { TEST_URL: url, TEST_DIRECT_URL: url }
    const following = scene.start(['sweep', 'describe', 'status', '--follow', '--json'], { env })
    await following.says(/"state":"running"/)
    proxy.refuse(true)
    proxy.cutAll()
    await following.says(/"CONNECTION_FAILED"/)
    proxy.refuse(false)
    void held.release()
    const { code, stderr } = await following.ended
    expect(code).toBe(EXIT.ok)
    const lines = stderr.trim().split('\n')
    expect(lines.map((line) => JSON.parse(line))).toContainEqual({
      error: { code: 'CONNECTION_FAILED', message: expect.stringContaining('cannot be reached') },
    })
    await running.ended
  })

  describe('goes away during a run', () => {
    /** A run with calls under way whose database has just gone. */
    async function cutOff() {
      const proxy = await startFaultProxy(serverAddress(testDatabaseUrl()))
      onTestFinished(() => proxy.close())
      const url = proxy.url(testDatabaseUrl())
      const held = scene.api.hold()
      const env = { TEST_URL: url, TEST_DIRECT_URL: url, TEST_GRACE: '500ms' }
      const running = scene.start(['sweep', 'describe', 'run'], { env })
      await eventually(() => scene.api.calls > 0)
      proxy.refuse(true)
      proxy.cutAll()
      await running.says(/Waiting for it\.\n/)
      return { proxy, held, running }
    }

    test('is waited for', async () => {
      const { proxy, held, running } = await cutOff()
      proxy.refuse(false)
      void held.release()
      const { code, stdout } = await running.ended
      expect(stdout).toMatch(/20 done, 0 errors/)
      expect(code).toBe(EXIT.ok)
    })

    test('can be left at once with Ctrl-C, pressed twice', async () => {
      const { held, running } = await cutOff()
      running.signal('SIGINT')
      await running.says(/^Stopping/m)
      await eventually(() => !running.signal('SIGINT'), { interval: 100 })
      void held.release()
      expect(await running.ended).toMatchObject({ code: EXIT.interrupted, signal: null })
      expect((await scene.run('sweep', 'describe', 'run')).code).toBe(EXIT.ok)
      expect(await scene.counts()).toEqual({ done: 20 })
    })
  })
})

describe('migrate', () => {
  afterAll(dropOwn)
  const env = { TEST_SCHEMA: OWN_SCHEMA }

  test('brings the schema up to date, and says what it did', async () => {
    await dropOwn()
    const first = await scene.start(['migrate', '--json'], { env }).ended
    const applied = Array.from({ length: SCHEMA_VERSION }, (_, index) => index + 1)
    expect(JSON.parse(first.stdout)).toEqual({ schema: OWN_SCHEMA, version: SCHEMA_VERSION, applied })
    const second = await scene.start(['migrate'], { env }).ended
    expect(second).toMatchObject({
      code: EXIT.ok,
      stdout: `Schema ${OWN_SCHEMA} is up to date (version ${SCHEMA_VERSION}).\n`,
    })
  })

  test('prints the SQL for others to run', async () => {
    const all = await scene.start(['migrate', '--print'], { env }).ended
    expect(all).toMatchObject({ code: EXIT.ok, stdout: migrationSql({ schema: OWN_SCHEMA }), stderr: '' })
    const some = await scene.start(['migrate', '--print', '--after', '1', '--json'], { env }).ended
    expect(JSON.parse(some.stdout)).toEqual({
      schema: OWN_SCHEMA,
      after: 1,
      version: SCHEMA_VERSION,
      sql: migrationSql({ schema: OWN_SCHEMA, after: 1 }),
    })
  })

  test('comes first for a worker that is told so', async () => {
    await dropOwn()
    const worker = scene.start(['work', '--migrate', '--json'], { env })
    await worker.says(/"event":"process:started"/)
    worker.signal('SIGINT')
    expect((await worker.ended).code).toBe(EXIT.ok)
  })
})
