import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { serverAddress, startFaultProxy } from '../../../../packages/triphase/test/support/fault-proxy.ts'
import { eventually } from '../../../../packages/triphase/test/support/processes.ts'
import type { RecordedCall } from '../support/model-server.ts'
import { type Scene, setScene } from '../support/scene.ts'
import { type ScoutProcess, spawnScout } from '../support/scout-process.ts'

/** What must never be called again: jobs whose answer was stored when a process was killed, with their calls until then. */
type Paid = Map<string, number>

async function killed(
  scout: ScoutProcess,
  { database, model }: Scene,
  paid: Paid = new Map(),
): Promise<Paid> {
  await scout.kill()
  await database.sessionsEnded()
  const calls = callsByJob((await model.calls()).calls)
  const migrated = await database.pool.query(`SELECT to_regclass('scout.migration') AS scout`)
  const answered = migrated.rows[0].scout === null ? [] : await database.answeredJobs()
  for (const job of answered) paid.set(job, calls.get(job) ?? 0)
  return paid
}

function callsByJob(calls: readonly RecordedCall[]): Map<string, number> {
  const counts = new Map<string, number>()
  for (const { idempotencyKey } of calls) {
    const job = /-(\d+)-/.exec(idempotencyKey ?? '')?.[1] ?? ''
    counts.set(job, (counts.get(job) ?? 0) + 1)
  }
  return counts
}

/** Every image has one completed analysis with the observations of one of its own calls, and nothing was paid twice. */
async function expectWhole({ database, model }: Scene, images: number, paid: Paid): Promise<void> {
  const { calls } = await model.calls()
  const rows = await database.analyses()
  expect(rows).toHaveLength(images)
  expect((await database.pool.query('SELECT FROM triphase.job_history')).rowCount).toBe(images)
  for (const { job_id, status, analyses, observations } of rows) {
    const texts = calls
      .filter(({ idempotencyKey }) => idempotencyKey?.includes(`-${job_id}-`))
      .map(({ number }) => `call ${number}`)
    expect({ status, analyses, observations: observations.length }).toEqual({
      status: 'completed',
      analyses: 1,
      observations: 1,
    })
    expect(texts).toContain(observations[0]!.text)
  }
  const counts = callsByJob(calls)
  for (const [job, before] of paid) expect({ job, calls: counts.get(job) }).toEqual({ job, calls: before })
}

async function untilDone(analyze: () => ScoutProcess): Promise<string> {
  const { code, output, errors } = await analyze().ended
  expect({ code, errors }).toEqual({ code: 0, errors: '' })
  return output
}

describe('killed and run again', () => {
  test('in the middle of its calls, it makes exactly those again that were under way', async ({
    onTestFinished,
  }) => {
    const it = await setScene(20, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'answer' }, times: 5 }, { behaviour: { kind: 'hold' } })
    const scout = it.analyze({ SCOUT_CONCURRENCY: '4' })
    await it.model.calls(9)
    await stored(it, 5)
    const paid = await killed(scout, it)
    expect([...paid.values()]).toEqual([1, 1, 1, 1, 1])
    await it.model.behave()
    expect(await untilDone(it.analyze)).toMatch(
      /\nUnfinished from before: \d+ jobs, which will be done, too\.\n/,
    )
    await expectWhole(it, 20, paid)
    expect((await it.model.calls()).calls).toHaveLength(24)
  })

  test('while it starts, reads the folder, and at each stage of its calls', async ({ onTestFinished }) => {
    const it = await setScene(24, onTestFinished)
    const calls = async (atLeast: number) => void (await it.model.calls(atLeast))
    const moments: ((scout: ScoutProcess) => Promise<void>)[] = [
      (scout) => scout.says(/^24 images/),
      () => captured(it.database, 3),
      () => calls(1),
      () => calls(8),
      () => calls(16),
      () => calls(24),
    ]
    const paid: Paid = new Map()
    for (const moment of moments) {
      const scout = it.analyze({ SCOUT_CONCURRENCY: '3' })
      await moment(scout)
      await killed(scout, it, paid)
    }
    await untilDone(it.analyze)
    await expectWhole(it, 24, paid)
  })

  test('while a commit waits, with the answer stored, it makes no call again', async ({ onTestFinished }) => {
    const it = await setScene(3, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const scout = it.analyze()
    await it.model.calls(3)
    const blocker = await it.database.pool.connect()
    await blocker.query('BEGIN; LOCK TABLE scout.observation IN SHARE MODE')
    await it.model.release()
    await stored(it, 3)
    await scout.kill()
    await blocker.query('ROLLBACK')
    blocker.release()
    const paid = await killed(scout, it)
    expect(paid.size).toBe(3)
    await untilDone(it.analyze)
    await expectWhole(it, 3, paid)
    expect((await it.model.calls()).calls).toHaveLength(3)
  })

  test('after a commit of which it never heard, it leaves that image alone', async ({ onTestFinished }) => {
    const it = await setScene(3, onTestFinished)
    const proxy = await startFaultProxy(serverAddress(it.database.url))
    onTestFinished(() => proxy.close())
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const scout = it.analyze({ SCOUT_CONCURRENCY: '1', DATABASE_URL: proxy.url(it.database.url) })
    await it.model.calls(1)
    await captured(it.database, 3)
    const commit = proxy.onStatement((sql, name) => name === 'scout' && /^commit/i.test(sql), 'hold-reply')
    await it.model.release()
    await commit.hit
    await scout.kill()
    await proxy.close()
    const paid = await killed(scout, it)
    expect(paid.size).toBe(1)
    await untilDone(it.analyze)
    await expectWhole(it, 3, paid)
    expect((await it.model.calls()).calls).toHaveLength(3)
  })

  test('with the embedded database, too', async ({ onTestFinished }) => {
    const { model, folder, env } = await setScene(6, onTestFinished)
    const { DATABASE_URL: _, ...embedded } = env
    const analyze = () => spawnScout(['analyze', folder], onTestFinished, { env: embedded })
    await model.behave({ behaviour: { kind: 'answer' }, times: 2 }, { behaviour: { kind: 'hold' } })
    const scout = analyze()
    await model.calls(6)
    await scout.kill()
    await model.behave()
    await untilDone(analyze)
    const { calls } = await model.calls()
    expect(calls.length).toBeGreaterThanOrEqual(10)
    expect(calls.length).toBeLessThanOrEqual(12)
    expect((await analyze().ended).output).toContain('6 images: 6 known from before.')
    expect((await model.calls()).calls).toHaveLength(calls.length)
  })

  test('at ten random moments', async ({ onTestFinished }) => {
    const it = await setScene(40, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'answer', delayMs: 60 } })
    const paid: Paid = new Map()
    for (let round = 0; round < 10; round++) {
      const scout = it.analyze({ SCOUT_CONCURRENCY: '3' })
      // Some moments are counted from the start of the process, some from its first sign of work.
      if (round % 2 === 1) await Promise.race([scout.says(/images from/), scout.ended])
      await delay(Math.random() * 700)
      await killed(scout, it, paid)
    }
    await untilDone(it.analyze)
    await expectWhole(it, 40, paid)
  }, 60_000)
})

describe.concurrent('two runs over the same folder', () => {
  test('share the work and call once for each image', async ({ onTestFinished }) => {
    const it = await setScene(30, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'answer', delayMs: 50 } })
    const runs = [it.analyze({ SCOUT_CONCURRENCY: '4' }), it.analyze({ SCOUT_CONCURRENCY: '4' })]
    for (const run of runs) expect(await run.ended).toMatchObject({ code: 0, errors: '' })
    await expectWhole(it, 30, new Map())
    expect((await it.model.calls()).calls).toHaveLength(30)
  })

  test('one killed, the other does its work within seconds', async ({ onTestFinished }) => {
    const it = await setScene(8, onTestFinished)
    await it.model.behave({ behaviour: { kind: 'hold' } })
    const [one, other] = [it.analyze({ SCOUT_CONCURRENCY: '4' }), it.analyze({ SCOUT_CONCURRENCY: '4' })]
    await it.model.calls(8)
    await one.kill()
    await it.model.behave()
    await it.model.release()
    expect(await other.ended).toMatchObject({ code: 0, errors: '' })
    await expectWhole(it, 8, new Map())
    expect((await it.model.calls()).calls).toHaveLength(12)
  })
})

/** Resolves when so many answers are stored. */
async function stored({ database }: Scene, count: number): Promise<void> {
  await eventually(async () => (await database.answeredJobs()).length >= count)
}

/** Resolves when so many captures are written. */
async function captured(database: Scene['database'], count: number): Promise<void> {
  const look = async () => (await database.pool.query('SELECT FROM scout.capture')).rowCount! >= count
  await eventually(() => look().catch(() => false), { interval: 5 })
}
