import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import {
  type FaultProxy,
  serverAddress,
  startFaultProxy,
} from '../../../../packages/triphase/test/support/fault-proxy.ts'
import { type Scene, setScene } from '../support/scene.ts'
import { spawnScout } from '../support/scout-process.ts'
import type { WhenFinished } from '../support/temporary-folder.ts'

async function proxied(
  { database }: Scene,
  whenFinished: WhenFinished,
): Promise<{ proxy: FaultProxy; env: { DATABASE_URL: string } }> {
  const proxy = await startFaultProxy(serverAddress(database.url))
  whenFinished(() => proxy.close())
  return { proxy, env: { DATABASE_URL: proxy.url(database.url) } }
}

async function expectAllOnce({ database, model }: Scene, images: number): Promise<void> {
  const rows = await database.analyses()
  expect(rows.map(({ status, observations }) => [status, observations.length])).toEqual(
    Array(images).fill(['completed', 1]),
  )
  expect((await model.calls()).calls).toHaveLength(images)
}

describe.concurrent('a database', () => {
  test('that is away at the start is waited for', async ({ onTestFinished }) => {
    const it = await setScene(2, onTestFinished)
    const { proxy, env } = await proxied(it, onTestFinished)
    proxy.refuse(true)
    const scout = it.analyze(env)
    await scout.says(/^The database cannot be reached: .+ Waiting for it for up to 60 s\.$/m)
    proxy.refuse(false)
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    expect(scout.said).toMatch(/^The database answers again\.$/m)
    await expectAllOnce(it, 2)
  })

  test('that goes away while calls are under way costs no call', async ({ onTestFinished }) => {
    const it = await setScene(8, onTestFinished)
    const { proxy, env } = await proxied(it, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const scout = it.analyze({ ...env, SCOUT_CONCURRENCY: '4' })
    await it.model.calls(4)
    proxy.refuse(true)
    proxy.cutAll()
    await it.model.release()
    await scout.says(/^The database .+ Waiting for it for up to 600 s\.$/m)
    proxy.refuse(false)
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    expect(scout.said).toMatch(/^The database answers again\.$/m)
    await expectAllOnce(it, 8)
  })

  test.for([
    ['whose server is killed', postmasterPid],
    ['of which a process is killed', backendPid],
  ] as const)("of Scout's own, %s, goes on, and costs no call", async ([, victim], { onTestFinished }) => {
    const it = await setScene(8, onTestFinished)
    const { DATABASE_URL: _, ...others } = it.env
    const env = { ...others, SCOUT_CONCURRENCY: '4' }
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const scout = spawnScout(['analyze', it.folder], onTestFinished, { env })
    await it.model.calls(4)
    process.kill(await victim(path.join(it.data, 'postgres')), 'SIGKILL')
    await it.model.release()
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    expect(scout.said).toContain('8 images: 8 analysed in')
    expect((await it.model.calls()).calls).toHaveLength(8)
    const again = await spawnScout(['analyze', it.folder], onTestFinished, { env }).ended
    expect(again.output).toContain('8 images: 8 known from before.')
  })

  test('that goes away while the folder is read loses no image', async ({ onTestFinished }) => {
    const it = await setScene(30, onTestFinished)
    const { proxy, env } = await proxied(it, onTestFinished)
    const captures = proxy.onStatement(/INSERT INTO scout\.capture/, 'cut-before', { skip: 10 })
    void captures.hit.then(() => {
      proxy.refuse(true)
      proxy.cutAll()
    })
    const scout = it.analyze(env)
    await scout.says(/^The database .+ Waiting for it for up to 600 s\.$/m)
    proxy.refuse(false)
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    await expectAllOnce(it, 30)
    // A claim whose reply was cut off comes back after 20 s.
  }, 90_000)

  test('whose connections are cut again and again, also after a commit that arrived, doubles nothing', async ({
    onTestFinished,
  }) => {
    const it = await setScene(20, onTestFinished)
    const { proxy, env } = await proxied(it, onTestFinished)
    const ofScout = (pattern: RegExp) => (sql: string, name: string) => name === 'scout' && pattern.test(sql)
    for (const skip of [3, 9, 15, 21, 27, 33, 39]) {
      proxy.onStatement(ofScout(/^commit/i), 'cut-after', { skip })
      proxy.onStatement(ofScout(/scout\.(analysis|observation)/), 'cut-before', { skip: skip * 2 })
    }
    const scout = it.analyze(env)
    expect(await scout.ended).toMatchObject({ code: 0, errors: '' })
    await expectAllOnce(it, 20)
    expect((await it.database.pool.query('SELECT FROM triphase.job_history')).rowCount).toBe(20)
  }, 90_000)

  test.for<[string, (url: URL) => void, RegExp]>([
    [
      'a wrong password',
      (url: URL) => {
        url.password = 'hunter2'
      },
      /^The database refused the login: password authentication failed/,
    ],
    [
      'a missing database',
      (url: URL) => {
        url.pathname = '/nowhere_hunter2'
        url.password ||= 'x'
      },
      /^The database refused the login: database "nowhere_hunter2" does not exist/,
    ],
  ])('with %s is refused at once', async ([name, spoil, message], { onTestFinished }) => {
    const it = await setScene(1, onTestFinished)
    const url = new URL(it.database.url)
    spoil(url)
    const { code, output, errors } = await it.analyze({ DATABASE_URL: url.href }).ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors).toMatch(message)
    if (name === 'a wrong password') expect(errors).not.toContain('hunter2')
  })

  test('in which the role may make nothing is refused with what to grant, and works once that is granted', async ({
    onTestFinished,
  }) => {
    const it = await setScene(1, onTestFinished)
    const { pool } = it.database
    const role = `scout_${randomBytes(4).toString('hex')}`
    await pool.query(`CREATE ROLE ${role} LOGIN PASSWORD 'hunter2'`)
    const url = new URL(it.database.url)
    Object.assign(url, { username: role, password: 'hunter2' })
    const run = () => it.analyze({ DATABASE_URL: url.href }).ended
    try {
      const refused = await run()
      expect({ code: refused.code, output: refused.output }).toEqual({ code: 1, output: '' })
      expect(refused.errors).toMatch(
        /^The database refused access to the schema triphase: .+ Grant the role CREATE/,
      )
      await pool.query(`CREATE SCHEMA triphase AUTHORIZATION ${role}`)
      const half = await run()
      expect({ code: half.code, output: half.output }).toEqual({ code: 1, output: '' })
      expect(half.errors).toMatch(
        /^The database refused access to the schema scout: .+ Grant the role CREATE/,
      )
      await pool.query(`CREATE SCHEMA scout AUTHORIZATION ${role}`)
      expect(await run()).toMatchObject({ code: 0, errors: '' })
      expect(refused.errors + half.errors).not.toContain('hunter2')
    } finally {
      await pool.query(`DROP OWNED BY ${role} CASCADE`)
      await pool.query(`DROP ROLE ${role}`)
    }
  })
})

describe.skipIf(!canMount())('a full disk', () => {
  test('of the object store ends the reading, and what was stored is analysed', async ({
    onTestFinished,
  }) => {
    const it = await setScene(12, onTestFinished)
    await mkdir(it.data)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24k', 'tmpfs', it.data])
    onTestFinished(() => void execFileSync('umount', ['-l', it.data]))
    const { code, output, errors } = await it.analyze().ended
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    expect(output).toMatch(/\n12 images: \d analysed in \d+ s, \d+ not looked at\.\n/)
    expect(output).toMatch(
      /\nstopped: Could not write \/.+: the disk is full\. Free some space, or point SCOUT_DATA to a larger disk\.\n/,
    )
    const before = (await it.model.calls()).calls.length
    expect(before).toBeGreaterThan(0)
    execFileSync('mount', ['-o', 'remount,size=10m', it.data])
    expect(await it.analyze().ended).toMatchObject({ code: 0, errors: '' })
    await expectAllOnce(it, 12)
  })

  test('of the embedded database is named', async ({ onTestFinished }) => {
    const it = await setScene(1, onTestFinished)
    await mkdir(it.data)
    await chmod(it.data, 0o755)
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', it.data])
    onTestFinished(() => void execFileSync('umount', ['-l', it.data]))
    const env = { SCOUT_DATA: path.join(it.data, 'data') }
    const { code, output, errors } = await spawnScout(['analyze', it.folder], onTestFinished, { env }).ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors).toMatch(/^The disk that holds .+ is full\. Free some space/)
  })
})

/** A process of the embedded server that serves Scout. */
async function backendPid(folder: string): Promise<number> {
  const read = (name: string) => readFile(path.join(folder, name), 'utf8')
  const [port, password] = await Promise.all([read('port'), read('cluster/password')])
  const client = new pg.Client({
    host: '127.0.0.1',
    port: Number(port),
    user: 'postgres',
    password: password.trim(),
  })
  await client.connect()
  try {
    const { rows } = await client.query(
      `SELECT pid FROM pg_stat_activity WHERE application_name = 'scout-engine' LIMIT 1`,
    )
    return rows[0].pid
  } finally {
    await client.end()
  }
}

async function postmasterPid(folder: string): Promise<number> {
  return Number.parseInt(await readFile(path.join(folder, 'cluster/data/postmaster.pid'), 'utf8'), 10)
}

/** Mounting takes root's rights, and a container may lack them all the same. */
function canMount(): boolean {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0) return false
  try {
    execFileSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}
