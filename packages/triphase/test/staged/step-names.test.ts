import { expect, test } from 'vitest'
import { type CallContext, defineStagedTask, unchecked } from '../../src/index.ts'
import { useEngines } from '../support/engines.ts'
import { jobIn } from '../support/jobs.ts'

const bench = useEngines()

type Step = CallContext<unknown, unknown>['step']

/** Runs a job whose call is this, to its end in `state`. */
async function runTo(state: 'completed' | 'discarded', call: (step: Step) => Promise<unknown>) {
  const task = defineStagedTask({
    name: 'steps',
    input: unchecked<null>(),
    maxAttempts: 1,
    prepare: async () => ({}),
    call: ({ step }) => call(step),
    commit: async ({ answer }) => answer,
  })
  const engine = bench.engine({ tasks: [task], queues: { default: 1 } })
  await engine.start()
  const { id } = await engine.enqueue(task, null)
  return jobIn(engine, id, state)
}

test.each([
  ['that is the whole answer’s', 'call', /cannot be named "call"/],
  ['without a character', '', /1 to 500 characters/],
  ['too long for an index', 'x'.repeat(501), /1 to 500 characters/],
  ['with what text has no place for', 'a\u0000b', /1 to 500 characters/],
  ['with half of a surrogate pair', 'a\ud800', /1 to 500 characters/],
])('a name %s is refused before anything is paid for', async (_what, name, fault) => {
  let paid = 0
  const job = await runTo('discarded', (step) => step(name, async () => paid++))
  expect(job.error).toMatchObject({ code: 'INVALID_OPTIONS', message: expect.stringMatching(fault) })
  expect(paid).toBe(0)
})

test.each([
  [
    'one after the other',
    async (step: Step, pay: () => Promise<number>) => [await step('page', pay), await step('page', pay)],
  ],
  [
    'at the same time',
    (step: Step, pay: () => Promise<number>) => Promise.all([step('page', pay), step('page', pay)]),
  ],
])('two steps of one name, %s, are refused before the second is paid for', async (_when, call) => {
  let paid = 0
  const job = await runTo('discarded', (step) => call(step, async () => ++paid))
  expect(job.error).toMatchObject({ code: 'INVALID_OPTIONS', message: expect.stringMatching(/"page"/) })
  expect(paid).toBe(1)
})

test('a step that failed may be run again in the same call', async () => {
  let tries = 0
  const work = async () => {
    if (++tries === 1) throw new Error('not yet')
    return 'there'
  }
  const job = await runTo('completed', (step) => step('page', work).catch(() => step('page', work)))
  expect(job.result).toBe('there')
})
