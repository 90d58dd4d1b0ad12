import type pg from 'pg'
import { expect, expectTypeOf, test } from 'vitest'
import {
  cancel,
  complete,
  defineStagedTask,
  discard,
  type Outcome,
  type StagedTaskDefinition,
  snooze,
  unchecked,
} from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()

type Phases = StagedTaskDefinition<null, null, unknown, unknown, unknown, pg.PoolClient>

/** Enqueues a job with these phases; `calls` and `commits` count those that ran to their end. */
async function started(phases: Partial<Phases>) {
  const counts = { calls: 0, commits: 0 }
  const task = defineStagedTask({
    name: 'outcomes',
    input: unchecked<null>(),
    maxAttempts: 1,
    prepare: async () => null,
    call: async () => ++counts.calls,
    commit: () => ++counts.commits,
    ...phases,
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  const snoozed = engine.telemetry.next('job:snoozed')
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  const answers = () => bench.schema.database.query('SELECT step FROM triphase.answer')
  return { engine, id, counts, snoozed, answers }
}

test.each([
  ['prepare', { prepare: async () => discard('not needed') }],
  ['call', { call: async () => discard('not needed') }],
  ['commit', { commit: () => discard('not needed') }],
])('%s discards', async (phase, phases) => {
  const { engine, id, counts } = await started(phases)
  const job = await jobIn(engine, id, 'discarded')
  expect(job.error).toMatchObject({ name: 'Permanent', message: 'not needed' })
  expect(counts).toEqual({ calls: phase === 'commit' ? 1 : 0, commits: 0 })
})

test.each([
  ['prepare', { prepare: async () => snooze('1h') }, 0],
  ['call', { call: async () => snooze('1h') }, 0],
  ['commit', { commit: () => snooze('1h') }, 1],
])('%s snoozes, and its attempt does not count', async (_phase, phases, stored) => {
  const { engine, id, counts, snoozed, answers } = await started(phases)
  expect(await snoozed).toMatchObject({ jobId: id, delayMs: 3_600_000 })
  expect(await engine.job(id)).toMatchObject({ state: 'scheduled', attempt: 0 })
  expect(counts).toEqual({ calls: stored, commits: 0 })
  expect(await answers()).toHaveLength(stored)
})

test('an answer that commit has snoozed on is not asked for again', async () => {
  let commits = 0
  const { engine, id, counts } = await started({
    commit: ({ answer }) => (++commits === 1 ? snooze(1) : complete({ answer })),
  })
  expect(await jobIn(engine, id, 'completed')).toMatchObject({ result: { answer: 1 } })
  expect(counts.calls).toBe(1)
})

test('what commit has written is rolled back', async () => {
  const { engine, id } = await started({
    commit: async ({ tx }) => {
      await tx.query(`INSERT INTO ${bench.schema.schema}.queue (name) VALUES ('written')`)
      return cancel('too late')
    },
  })
  expect(await jobIn(engine, id, 'cancelled')).toMatchObject({ error: { message: 'too late' } })
  expect(await bench.schema.database.query('SELECT name FROM triphase.queue')).toEqual([])
})

test('a step is refused that returns one', async () => {
  const { engine, id, answers } = await started({
    call: ({ step }) => step('wait', async () => snooze('1h')),
  })
  const job = await jobIn(engine, id, 'discarded')
  expect(job.error).toMatchObject({ code: 'INVALID_OPTIONS', message: expect.stringContaining('"wait"') })
  expect(await answers()).toEqual([])
})

test('the types of what follows are those without it', () => {
  defineStagedTask({
    name: 'typed',
    input: unchecked<boolean>(),
    prepare: async ({ input }) => (input ? { url: 'a' } : discard()),
    call: async ({ prepared }) => {
      expectTypeOf(prepared).toEqualTypeOf<{ url: string }>()
      return prepared.url === '' ? snooze('1s') : 7
    },
    commit: async ({ answer }): Promise<Outcome | undefined> => {
      expectTypeOf(answer).toEqualTypeOf<number>()
      return undefined
    },
  })
})
