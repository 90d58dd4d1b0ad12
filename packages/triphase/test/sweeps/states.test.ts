import fc from 'fast-check'
import { expect, test } from 'vitest'
import { defineSweep } from '../../src/index.ts'
import type { Database } from '../../src/store/database.ts'
import {
  beginRun,
  completeRun,
  createRun,
  endRun,
  feedRun,
  findRun,
  latestRun,
  nextPass,
  pauseRun,
  resumeRun,
  reviveRun,
  type StoredRunState,
} from '../../src/store/sweep-run.ts'
import { ARROWS, FINAL_STATES, shownState } from '../../src/sweeps/states.ts'
import { useEngines } from '../support/engines.ts'
import { useRecords } from './table-of-records.ts'

const bench = useEngines()
const records = useRecords('sweep_states_records')
const LIMITS = { concurrency: 1, rate: null, callBudget: null, spendBudget: null }

interface Model {
  state: StoredRunState | undefined
  begun: boolean
  fed: boolean
}

const open = (model: Model) => model.state !== undefined && !FINAL_STATES.includes(model.state)

/** What each command makes of the model; undefined: it is refused, and nothing changes. */
const commands: Record<string, (model: Model) => Partial<Model> | undefined> = {
  create: (model) => (open(model) ? undefined : { state: 'planned', begun: false, fed: false }),
  begin: (model) => (model.state === 'planned' ? { state: 'running', begun: true } : undefined),
  pause: (model) => (['planned', 'running'].includes(model.state ?? '') ? { state: 'paused' } : undefined),
  resume: (model) => (model.state === 'paused' ? { state: model.begun ? 'running' : 'planned' } : undefined),
  cancel: (model) => (open(model) ? { state: 'cancelled' } : undefined),
  fail: (model) => (['planned', 'running'].includes(model.state ?? '') ? { state: 'failed' } : undefined),
  feed: (model) => (model.state === 'running' && !model.fed ? { fed: true } : undefined),
  complete: (model) => (model.state === 'running' && model.fed ? { state: 'completed' } : undefined),
  revive: () => undefined,
}

async function perform(database: Database, name: string): Promise<boolean> {
  const run = { sweep: 'modelled', queue: 'default', priority: 2, concurrency: 3, rate: null }
  if (name === 'create')
    return (await createRun(database, { ...run, callBudget: null, spendBudget: null })) !== null
  const id = await latestRun(database, 'modelled')
  if (id === null) return false
  const found = (await findRun(database, id))!
  switch (name) {
    case 'begin':
      return beginRun(database, id, { count: 0, estimated: false })
    case 'pause':
      return pauseRun(database, id, ARROWS.pause.from, 'asked')
    case 'resume':
      return resumeRun(database, id, ARROWS.resume.from)
    case 'cancel':
      return endRun(database, id, ARROWS.cancel.from, ARROWS.cancel.to, null)
    case 'fail':
      return endRun(database, id, ARROWS.fail.from, ARROWS.fail.to, 'broken')
    case 'feed':
      return feedRun(database, found, [], { fed: true, priority: 2 })
    case 'complete':
      return completeRun(database, found, { priority: 2, maxAttempts: 3 })
    default:
      return reviveRun(database, id)
  }
}

test('a run follows its arrows and no others; an open run always has one steward, a completed one a hook', async () => {
  const { database } = bench.schema
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...Object.keys(commands)), { maxLength: 14 }),
      async (names) => {
        await bench.schema.clean()
        const model: Model = { state: undefined, begun: false, fed: false }
        for (const name of names) {
          const change = commands[name]!(model)
          expect(await perform(database, name), name).toBe(change !== undefined)
          Object.assign(model, change)
          const id = await latestRun(database, 'modelled')
          const run = id === null ? null : await findRun(database, id)
          expect(run?.state).toBe(model.state)
          if (run && (run.state === 'planned' || run.state === 'running')) expect(run.hasSteward).toBe(true)
          if (run) expect(run.hookWaits).toBe(run.state === 'completed')
        }
        const hooks = await database.query(`SELECT FROM triphase.job WHERE input::jsonb ? 'hook'`)
        const completed = await database.query(`SELECT FROM triphase.sweep_run WHERE state = 'completed'`)
        expect(hooks.length).toBe(completed.length)
      },
    ),
    { numRuns: 60 },
  )
})

test('the latest run is the one that came last, also where its number has one digit more', async () => {
  const { database } = bench.schema
  const create = () => createRun(database, { ...LIMITS, sweep: 'tenth', queue: 'default', priority: 2 })
  const first = Number(await create())
  await endRun(database, `${first}`, ARROWS.cancel.from, ARROWS.cancel.to, null)
  const nines = 10 ** `${first}`.length - 1
  await database.query(`SELECT setval(pg_get_serial_sequence('triphase.sweep_run', 'id'), $1)`, [nines - 1])
  const ninth = await create()
  await endRun(database, ninth!, ARROWS.cancel.from, ARROWS.cancel.to, null)
  const tenth = await create()
  expect([ninth, tenth]).toEqual([`${nines}`, `${nines + 1}`])
  expect(await latestRun(database, 'tenth')).toBe(tenth)
})

test('the cursor is moved once by whoever has read it, and a pass ends only when its pages are gone', async () => {
  const { database } = bench.schema
  const id = (await createRun(database, {
    sweep: 'fed',
    queue: 'default',
    priority: 2,
    concurrency: 1,
    rate: null,
    callBudget: null,
    spendBudget: null,
  }))!
  await beginRun(database, id, { count: 3, estimated: false })
  const seen = (await findRun(database, id))!
  const feeds = [1, 2, 3].map(() => feedRun(database, seen, ['["5"]', '["9"]'], { fed: true, priority: 2 }))
  expect((await Promise.all(feeds)).filter(Boolean)).toHaveLength(1)
  const fed = (await findRun(database, id))!
  expect(fed).toMatchObject({ pages: 2, passPages: 2, cursor: '["9"]', fed: true })
  expect(await nextPass(database, id, fed.feedNo)).toBe(false)
  expect(await completeRun(database, fed, null)).toBe(false)
  await database.query('DELETE FROM triphase.sweep_page')
  const passes = [1, 2, 3].map(() => nextPass(database, id, fed.feedNo))
  expect((await Promise.all(passes)).filter(Boolean)).toHaveLength(1)
  const pages = await database.query('SELECT FROM triphase.job WHERE input::jsonb ? $1', ['page'])
  expect(pages).toHaveLength(2)
})

test('of several stewards that find the last pass empty one completes the run, with one hook', async () => {
  const { database } = bench.schema
  const run = { sweep: 'ended', queue: 'default', priority: 2, concurrency: 1, rate: null }
  const id = (await createRun(database, { ...run, callBudget: null, spendBudget: null }))!
  await beginRun(database, id, { count: 0, estimated: false })
  await feedRun(database, (await findRun(database, id))!, [], { fed: true, priority: 2 })
  const seen = (await findRun(database, id))!
  const completions = [1, 2, 3, 4].map(() => completeRun(database, seen, { priority: 2, maxAttempts: 3 }))
  expect((await Promise.all(completions)).filter(Boolean)).toHaveLength(1)
  expect(await database.query("SELECT FROM triphase.job WHERE input::jsonb ? 'hook'")).toHaveLength(1)
})

test.each([
  [{ state: 'running', hasSteward: true, hasProcess: true }, 'running'],
  [{ state: 'running', hasSteward: false, hasProcess: true }, 'interrupted'],
  [{ state: 'planned', hasSteward: true, hasProcess: false }, 'interrupted'],
  [{ state: 'paused', slots: 2 }, 'pausing'],
  [{ state: 'paused', slots: 0 }, 'paused'],
  [{ state: 'completed', hookWaits: true }, 'completing'],
  [{ state: 'completed', hookWaits: false }, 'completed'],
  [{ state: 'cancelled', slots: 2 }, 'cancelled'],
] as const)('%o is shown as %s', (run, shown) => {
  const alive = { slots: 0, hasSteward: false, hasProcess: false, hookWaits: false }
  expect(shownState({ ...alive, ...run })).toBe(shown)
})

test.each(['run', 'retryErrors'] as const)(
  'records that are pending before %s are not left behind by a run that was about to complete',
  async (verb) => {
    const { database } = bench.schema
    await records.fill(3)
    await records.pool.query(`UPDATE ${records.name} SET status = 'error'`)
    const sweep = defineSweep({
      name: `late-${verb}`,
      table: { name: records.name, key: 'id' },
      each: async () => {},
    })
    const control = bench.engine({ tasks: [sweep] }).sweep(sweep)
    const { runId } = await control.run()
    await beginRun(database, runId, { count: 0, estimated: false })
    // Its steward has read the table, and found nothing.
    await feedRun(database, (await findRun(database, runId))!, [], { fed: true, priority: 2 })
    const seen = (await findRun(database, runId))!
    if (verb === 'run') {
      await records.pool.query(`UPDATE ${records.name} SET status = 'pending'`)
      expect(await control.run()).toMatchObject({ runId, created: false })
    } else expect(await control.retryErrors({ all: true })).toBe(3)
    expect(await completeRun(database, seen, null)).toBe(false)
    const engine = bench.engine({ tasks: [sweep], queues: { default: 2 } })
    await engine.start()
    expect(await control.settled()).toMatchObject({ runId, state: 'completed', done: 3 })
  },
)
