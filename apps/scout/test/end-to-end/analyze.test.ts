import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, copyFile, mkdir } from 'node:fs/promises'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { startFauxqs } from 'fauxqs'
import pg from 'pg'
import { describe, expect, test } from 'vitest'
import { setScene } from '../support/scene.ts'
import { LAUNCHER, spawnScout } from '../support/scout-process.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

describe('analyze', () => {
  test('analyses every image of a folder once, shows what it found, and leaves it alone the next time', async ({
    onTestFinished,
  }) => {
    const { analyze, database, model } = await setScene(6, onTestFinished)
    const first = await analyze().ended
    expect(first).toMatchObject({ code: 0, errors: '' })
    expect(first.output).toMatch(
      /^6 images from images, model compatible:test, database 127\.0\.0\.1:\d+\/scout_\w+\n/,
    )
    expect(first.output).toMatch(/\n6 of 6 images(, [\d.]+ a second)?\n/)
    expect(first.output).toMatch(/│ 00\.jpg +│ completed +│ thing 0\.90 +│\n/)
    expect(first.output).toMatch(/\n6 images: 6 analysed in \d+ s\.\n/)
    expect(first.output).toMatch(
      /\njobs {9}6 run here, up to 12 at a time; at most \d in their call at once\n/,
    )
    expect(first.output).toMatch(/\nconnections {2}at most \d of 10 \(application\), \d of 6 \(engine\)\n/)
    expect(first.output).toMatch(
      /\nhold {9}[\d.]+ ms of the [\d.]+ m?s that a job took on average \([\d.]+%\)\n/,
    )

    const { calls } = await model.calls()
    expect(calls).toHaveLength(6)
    const rows = await database.analyses()
    for (const row of rows) {
      const call = calls.find(({ idempotencyKey }) => idempotencyKey?.includes(`-${row.job_id}-`))
      expect(row).toMatchObject({ status: 'completed', analyses: 1, error: null })
      expect(row.observations).toEqual([{ label: 'thing', confidence: 0.9, text: `call ${call?.number}` }])
    }
    expect(rows).toHaveLength(6)

    const second = await analyze().ended
    expect(second).toMatchObject({ code: 0, errors: '' })
    expect(second.output).toContain('6 images: 6 known from before.\n')
    expect((await model.calls()).calls).toHaveLength(6)
    expect(await database.analyses()).toEqual(rows)
  })

  test('takes files with the same content for one image, whatever they are called', async ({
    onTestFinished,
  }) => {
    const { analyze, database, model, folder } = await setScene(2, onTestFinished)
    await mkdir(path.join(folder, 'again'))
    await copyFile(path.join(folder, '00.jpg'), path.join(folder, 'again/copy.jpeg'))
    const { code, output } = await analyze().ended
    expect(code).toBe(0)
    expect(output).toContain('\n2 images: 2 analysed in ')
    expect(output).toMatch(/│ (00\.jpg|again\/copy\.jpeg) \+1 the same │ completed/)
    expect(await database.analyses()).toHaveLength(2)
    expect((await model.calls()).calls).toHaveLength(2)
  })

  test('makes far more calls at once than it has connections', async ({ onTestFinished }) => {
    const { analyze, database, model } = await setScene(30, onTestFinished)
    await model.behave({ behaviour: { kind: 'hold' } })
    const scout = analyze({ SCOUT_CONCURRENCY: '30', SCOUT_APP_POOL: '1', SCOUT_ENGINE_POOL: '2' })
    expect((await model.calls(30)).inFlight).toBe(30)
    const { rows } = await database.pool.query<{ application_name: string; count: number; busy: number }>(
      `SELECT application_name, count(*)::int AS count,
              (count(*) FILTER (WHERE state LIKE 'idle in transaction%'))::int AS busy
       FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'scout%'
       GROUP BY 1 ORDER BY 1`,
    )
    expect(rows).toEqual([
      { application_name: 'scout', count: 1, busy: 0 },
      { application_name: 'scout-engine', count: 2, busy: 0 },
    ])
    await model.release()
    const { code, output } = await scout.ended
    expect(code).toBe(0)
    expect(output).toMatch(/\njobs +30 run here, up to 30 at a time; at most 30 in their call at once\n/)
    expect(output).toContain('at most 1 of 1 (application), 2 of 2 (engine)\n')
  })

  test('broadcasts each completed analysis', async ({ onTestFinished }) => {
    const { analyze, database } = await setScene(3, onTestFinished)
    const listener = new pg.Client({ connectionString: database.url, application_name: 'test' })
    await listener.connect()
    onTestFinished(() => listener.end())
    const heard: unknown[] = []
    listener.on('notification', ({ payload }) => heard.push(JSON.parse(payload ?? '')))
    await listener.query('LISTEN scout_analysis')
    expect((await analyze().ended).code).toBe(0)
    await listener.query('SELECT')
    const { rows } = await database.pool.query(
      `SELECT capture_id::text AS "captureId", id::text AS "analysisId", 1 AS observations FROM scout.analysis`,
    )
    expect(heard.sort(byCapture)).toEqual(rows.sort(byCapture))
  })

  test('keeps images in S3 when a bucket is set', async ({ onTestFinished }) => {
    const { analyze, database, model, data } = await setScene(3, onTestFinished)
    const s3 = await startFauxqs({ port: 0, logger: false })
    onTestFinished(() => s3.stop())
    s3.createBucket('captures')
    const env = {
      SCOUT_S3_BUCKET: 'captures',
      SCOUT_S3_ENDPOINT: `http://127.0.0.1:${s3.port}`,
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      AWS_REGION: 'eu-central-1',
    }
    const missing = await analyze({ ...env, SCOUT_S3_BUCKET: 'nothing-here' }).ended
    expect(missing.code).toBe(1)
    expect(missing.output).toMatch(
      /\nstopped: .*nothing-here.*the bucket does not exist\. Create it, or correct SCOUT_S3_BUCKET\./,
    )
    expect(missing.output).toContain('3 images: 3 not looked at.')

    expect(await analyze(env).ended).toMatchObject({ code: 0, errors: '' })
    expect((await database.analyses()).map(({ status }) => status)).toEqual([
      'completed',
      'completed',
      'completed',
    ])
    expect((await model.calls()).calls).toHaveLength(3)
    await expect(access(data)).rejects.toThrow('ENOENT')
  })

  test('starts a database of its own and looks at the demo photos when nothing is set', async ({
    onTestFinished,
  }) => {
    const env = { SCOUT_DATA: path.join(await temporaryFolder(onTestFinished), 'data') }
    const first = await spawnScout(['analyze', 'samples'], onTestFinished, { env }).ended
    expect(first).toMatchObject({ code: 0, errors: '' })
    expect(first.output).toMatch(/^7 images from samples, model local:coco-ssd, database embedded \(/)
    expect(first.output).toMatch(/│ locomotion-house-cat\.jpg +│ completed │ .*cat 0\.\d\d x\d/)
    expect(first.output).toMatch(/│ nagasaki-boats\.jpg +│ completed │ .*boat 0\.\d\d/)
    expect(first.output).toContain('Seen by the local detector')
    expect(first.output).toMatch(/^connections {2}at most \d of 10 \(application\), \d of 6 \(engine\)$/m)
    const second = await spawnScout(['analyze', 'samples'], onTestFinished, { env }).ended
    expect(second).toMatchObject({ code: 0, errors: '' })
    expect(second.output).toContain('7 images: 7 known from before.')
  })

  test('ends quietly when nobody reads what it says', async ({ onTestFinished }) => {
    const { folder, env } = await setScene(1, onTestFinished)
    const command = 'set -o pipefail; "$0" "$1" analyze "$2" | head -n 1'
    const child = spawn('bash', ['-c', command, process.execPath, LAUNCHER, folder], {
      env: { PATH: process.env.PATH ?? '', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'close'), text(child.stdout)])
    expect([code, errors]).toEqual([141, ''])
  })
})

function byCapture(a: unknown, b: unknown): number {
  return JSON.stringify(a).localeCompare(JSON.stringify(b))
}
