import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type BeatReport, beatPages } from '../../src/store/sweep-page.ts'
import { beginRun, createRun, feedRun, findRun } from '../../src/store/sweep-run.ts'
import { useEngines } from '../support/engines.ts'
import { insertProcess } from '../support/store-jobs.ts'

const bench = useEngines()
const none = { calls: 0, spent: 0, drained: false, ok: 0, failed: 0, trailing: 0, slowMs: 0 }
const breaker = { inRow: 20, window: 100, share: 0.5 }

async function beatPage(runId: string, report: Partial<BeatReport> & { pageId: string }) {
  const all = { claimNo: 1, wanted: 0, busy: 0, ...none, breaker, ...report }
  const [answer] = await beatPages(bench.schema.database, runId, [all])
  return answer!
}

/** A run whose pages are all being worked on. */
async function runWithPages(
  concurrency: number,
  pages: number,
): Promise<{ runId: string; pageIds: string[] }> {
  const { database } = bench.schema
  const run = { sweep: 'slots', queue: 'default', priority: 2, concurrency, rate: null }
  const runId = (await createRun(database, { ...run, callBudget: null, spendBudget: null }))!
  await beginRun(database, runId, { count: 0, estimated: false })
  const keys = Array.from({ length: pages }, (_, index) => `["${index}"]`)
  await feedRun(database, (await findRun(database, runId))!, keys, { fed: true, priority: 2 })
  const processId = await insertProcess(database)
  await database.query(
    `UPDATE triphase.job SET state = 'executing', claim_no = 1, process_id = $1, claimed_at = now()
     WHERE id IN (SELECT job_id FROM triphase.sweep_page)`,
    [processId],
  )
  const rows = await database.query<{ id: string }>(
    'SELECT id::text FROM triphase.sweep_page ORDER BY sweep_page.id',
  )
  return { runId, pageIds: rows.map(({ id }) => id) }
}

test('pages that ask at the same time never get more slots than the run has, and none is left out', async () => {
  const { database } = bench.schema
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 12 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 }),
      async (concurrency, wanted) => {
        await bench.schema.clean()
        const { runId, pageIds } = await runWithPages(concurrency, wanted.length)
        const beat = (pageId: string, index: number, busy: number) =>
          beatPage(runId, { pageId, wanted: wanted[index]!, busy })
        const granted = await Promise.all(pageIds.map((pageId, index) => beat(pageId, index, 0)))
        const sum = granted.reduce((total, { slots }) => total + slots, 0)
        expect(sum).toBeLessThanOrEqual(concurrency)
        // Nobody is busy with more than a fair share for long: all settle, and use what there is.
        let slots: number[] = []
        for (let round = 0; round < 3; round++) {
          slots = []
          for (const [index, pageId] of pageIds.entries()) slots.push((await beat(pageId, index, 0)).slots)
          const [row] = await database.query<{ sum: number }>(
            'SELECT sum(slots)::int AS sum FROM triphase.sweep_page',
          )
          expect(row!.sum).toBeLessThanOrEqual(concurrency)
        }
        const all = wanted.reduce((total, one) => total + one, 0)
        expect(slots.reduce((total, one) => total + one, 0)).toBe(Math.min(concurrency, all))
      },
    ),
    { numRuns: 40 },
  )
})

test('slots of a claim that was lost are free, and what is busy stays counted', async () => {
  const { database } = bench.schema
  const { runId, pageIds } = await runWithPages(4, 2)
  const [first, second] = pageIds as [string, string]
  const beat = (pageId: string, claimNo: number, busy: number) =>
    beatPage(runId, { pageId, claimNo, wanted: 10, busy })
  expect((await beat(first, 1, 0)).slots).toBe(4)
  expect((await beat(second, 1, 0)).slots).toBe(0)
  // Its share is two now, but four calls are under way.
  expect((await beat(first, 1, 4)).slots).toBe(2)
  expect((await beat(second, 1, 0)).slots).toBe(0)
  expect((await beat(first, 1, 2)).slots).toBe(2)
  expect((await beat(second, 1, 0)).slots).toBe(2)
  await database.query(
    'UPDATE triphase.job SET claim_no = 2 WHERE id = (SELECT job_id FROM triphase.sweep_page WHERE id = $1)',
    [first],
  )
  expect((await beat(second, 1, 2)).slots).toBe(4)
  expect(await beat(first, 1, 2)).toMatchObject({ state: 'lost', slots: 0 })
})

test('what one page gives back the next one has, in the same statement', async () => {
  const { runId, pageIds } = await runWithPages(4, 2)
  const [first, second] = pageIds as [string, string]
  expect((await beatPage(runId, { pageId: first, wanted: 10 })).slots).toBe(4)
  const report = (pageId: string, wanted: number, busy: number): BeatReport => ({
    ...none,
    pageId,
    claimNo: 1,
    wanted,
    busy,
    breaker,
  })
  const answers = await beatPages(bench.schema.database, runId, [report(first, 1, 1), report(second, 10, 0)])
  expect(answers.map(({ slots }) => slots)).toEqual([1, 3])
})

test('a budget of calls is given out once, whoever asks at the same time', async () => {
  const { database } = bench.schema
  const { runId, pageIds } = await runWithPages(10, 4)
  await database.query('UPDATE triphase.sweep_run SET call_budget = 25')
  const calls = new Map(pageIds.map((id) => [id, 0]))
  const left = new Map(pageIds.map((id) => [id, 0]))
  // What it holds shrinks with what is left, whenever it comes last in a round; the next round gives that out.
  for (let round = 0; round < 12; round++) {
    await Promise.all(
      pageIds.map(async (pageId, index) => {
        const answer = await beatPage(runId, { pageId, wanted: 5, calls: calls.get(pageId)! })
        left.set(pageId, answer.callsLeft ?? 0)
        // One of them does nothing with what it gets.
        if (index === 0) return
        calls.set(pageId, calls.get(pageId)! + left.get(pageId)!)
        left.set(pageId, 0)
      }),
    )
    const [made, held] = [calls, left].map((counts) =>
      [...counts.values()].reduce((sum, one) => sum + one, 0),
    )
    expect(made! + held!).toBeLessThanOrEqual(25)
  }
  expect(left.get(pageIds[0]!)! + [...calls.values()].reduce((sum, one) => sum + one, 0)).toBe(25)
})
