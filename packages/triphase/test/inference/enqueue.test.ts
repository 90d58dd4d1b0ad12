import type pg from 'pg'
import { expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  createEngine,
  defineTask,
  type Engine,
  type InsertedJob,
  type JobContext,
  type Task,
  unchecked,
} from '../../src/index.ts'

// Checked by tsc; nothing of this is run.
const engine = null as unknown as Engine<pg.PoolClient>

const remind = defineTask({
  name: 'remind',
  input: z.object({
    at: z.coerce.date<string>(),
    text: z
      .string()
      .transform((text) => text.length)
      .optional(),
  }),
  run: ({ input }) => {
    expectTypeOf(input).toEqualTypeOf<{ at: Date; text?: number | undefined }>()
  },
})

test('what is given when enqueueing is what the schema takes, and the handler gets what it makes of it', () => {
  expectTypeOf(remind).toExtend<Task<{ at: string; text?: string | undefined }>>()
  const calls = () => {
    expectTypeOf(engine.enqueue(remind, { at: '2030-01-01' })).toEqualTypeOf<Promise<InsertedJob>>()
    expectTypeOf(
      engine.enqueueMany(remind, [{ input: { at: 'x', text: 'y' }, priority: 'high' }]),
    ).toEqualTypeOf<Promise<InsertedJob[]>>()
  }
  expectTypeOf(calls).toBeFunction()
})

test('enqueue refuses other inputs', () => {
  const calls = () => [
    // @ts-expect-error a Date is what the handler gets, not what is given
    engine.enqueue(remind, { at: new Date() }),
    // @ts-expect-error text is missing its type
    engine.enqueue(remind, { at: '2030-01-01', text: 7 }),
    // @ts-expect-error at is missing
    engine.enqueue(remind, {}),
    // @ts-expect-error there is no such field
    engine.enqueue(remind, { at: '2030-01-01', txet: 'x' }),
    // @ts-expect-error an input is needed
    engine.enqueue(remind),
    // @ts-expect-error one of the inputs is wrong
    engine.enqueueMany(remind, [{ input: { at: 'x' } }, { input: { at: 5 } }]),
  ]
  expectTypeOf(calls).toBeFunction()
})

test('enqueue refuses other options', () => {
  const input = { at: '2030-01-01' }
  const calls = () => [
    // @ts-expect-error there is no such option
    engine.enqueue(remind, input, { priorty: 'high' }),
    // @ts-expect-error there is no such priority
    engine.enqueue(remind, input, { priority: 'highest' }),
    // @ts-expect-error not a length of time
    engine.enqueue(remind, input, { delay: 'soon' }),
    // @ts-expect-error a text is no date
    engine.enqueue(remind, input, { runAt: '2030-01-01' }),
    // @ts-expect-error the delays between attempts belong to the task
    engine.enqueue(remind, input, { backoff: { initial: '1s' } }),
    // @ts-expect-error a transaction of something else
    engine.enqueue(remind, input, { tx: { commit() {} } }),
  ]
  expectTypeOf(calls).toBeFunction()
})

test('defineTask refuses what cannot be', () => {
  const calls = () => [
    // @ts-expect-error run is missing
    defineTask({ name: 'a', input: z.string() }),
    // @ts-expect-error there is no such option
    defineTask({ name: 'a', input: z.string(), run: () => null, retries: 3 }),
    // @ts-expect-error not a length of time
    defineTask({ name: 'a', input: z.string(), run: () => null, timeout: '5 minutes' }),
    // @ts-expect-error the handler wants another input than the schema makes
    defineTask({ name: 'a', input: z.string(), run: (context: JobContext<number>) => context.input }),
  ]
  expectTypeOf(calls).toBeFunction()
})

test('unchecked() gives a type without a check', () => {
  const task = defineTask({
    name: 'unchecked',
    input: unchecked<{ n: number }>(),
    run: ({ input }) => expectTypeOf(input).toEqualTypeOf<{ n: number }>(),
  })
  expectTypeOf(task).toExtend<Task<{ n: number }>>()
  // @ts-expect-error the type is meant all the same
  const wrong = () => engine.enqueue(task, { n: 'x' })
  expectTypeOf(wrong).toBeFunction()
})

test('tasks of any input fit one engine, and no other can be enqueued by mistake', () => {
  const other = defineTask({ name: 'other', input: z.number(), run: () => null })
  const make = () => createEngine({ url: 'postgres://localhost', tasks: [remind, other] })
  expectTypeOf(make).returns.toExtend<{ start(): Promise<void> }>()
  // @ts-expect-error the input of one is not that of the other
  const wrong = () => engine.enqueue(other, { at: '2030-01-01' })
  expectTypeOf(wrong).toBeFunction()
})

test('an engine without tasks, or with tasks that need no transaction, has a transaction of pg', () => {
  const make = () => createEngine({ url: 'postgres://localhost' })
  const withTasks = () => createEngine({ url: 'postgres://localhost', tasks: [remind] })
  type TransactionIn<Made extends () => unknown> =
    ReturnType<Made> extends { transaction(work: (tx: infer Tx) => Promise<unknown>): unknown } ? Tx : never
  expectTypeOf<TransactionIn<typeof make>>().toEqualTypeOf<pg.PoolClient>()
  expectTypeOf<TransactionIn<typeof withTasks>>().toEqualTypeOf<pg.PoolClient>()
  expectTypeOf(make).returns.toExtend<Pick<Engine<never>, 'telemetry'>>()
})
