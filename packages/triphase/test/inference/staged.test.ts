import type pg from 'pg'
import { expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  alreadyDone,
  createEngine,
  defineStagedTask,
  defineTask,
  knownAnswer,
  pgTransactor,
  stagedTasksFor,
  type Task,
  type Transactor,
  unchecked,
} from '../../src/index.ts'

// Checked by tsc; nothing of this is run but the definitions.
interface OtherTx {
  execute(sql: string): Promise<number>
}
const otherTransactor = null as unknown as Transactor<OtherTx>
const url = 'postgres://localhost/db'

const describeImage = defineStagedTask({
  name: 'describe',
  input: z.object({ imageId: z.string(), size: z.string().transform(Number) }),
  answer: z.object({ labels: z.array(z.string()), score: z.string().transform(Number) }),
  prepare: async ({ tx, input, job, signal }) => {
    expectTypeOf(tx).toEqualTypeOf<pg.PoolClient>()
    expectTypeOf(input).toEqualTypeOf<{ imageId: string; size: number }>()
    expectTypeOf(job.attempt).toBeNumber()
    expectTypeOf(signal).toEqualTypeOf<AbortSignal>()
    if (input.size === 0) return alreadyDone('nothing to see')
    if (input.size === 1) return knownAnswer({ url: 'x', pixels: 1 }, { labels: [], score: '1' })
    return { url: 'x', pixels: input.size }
  },
  call: async ({ prepared, step, query }) => {
    expectTypeOf(prepared).toEqualTypeOf<{ url: string; pixels: number }>()
    expectTypeOf(await step('download', async () => 5)).toBeNumber()
    expectTypeOf(query).returns.toEqualTypeOf<Promise<{ rows: unknown[] }>>()
    return { labels: ['cat'], score: '0.5' }
  },
  commit: async ({ tx, prepared, answer, input }) => {
    expectTypeOf(tx).toEqualTypeOf<pg.PoolClient>()
    expectTypeOf(prepared).toEqualTypeOf<{ url: string; pixels: number }>()
    expectTypeOf(answer).toEqualTypeOf<{ labels: string[]; score: number }>()
    expectTypeOf(input.size).toBeNumber()
  },
})

const onOther = stagedTasksFor<OtherTx>()({
  name: 'on-other',
  input: unchecked<{ id: number }>(),
  prepare: async ({ tx }) => {
    expectTypeOf(tx).toEqualTypeOf<OtherTx>()
    return { found: await tx.execute('x') }
  },
  call: async ({ prepared }) => `${prepared.found}`,
  commit: async ({ tx, answer }) => {
    expectTypeOf(answer).toEqualTypeOf<string>()
    return tx.execute(answer)
  },
})

const plain = defineTask({ name: 'plain', input: z.string(), run: () => null })

test('the phases are typed by each other and by the schemas', () => {
  expectTypeOf(describeImage).toExtend<Task<{ imageId: string; size: string }, pg.PoolClient>>()
})

test('without an answer schema the answer is what call returns', () => {
  defineStagedTask({
    name: 'plain-answer',
    input: unchecked<null>(),
    prepare: async () => 5,
    call: async ({ prepared }) => {
      expectTypeOf(prepared).toBeNumber()
      return [`${prepared}`]
    },
    commit: async ({ answer }) => expectTypeOf(answer).toEqualTypeOf<string[]>(),
  })
})

test('phases that do not fit each other are refused', () => {
  const input = unchecked<null>()
  const answer = z.object({ labels: z.array(z.string()) })
  const [prepare, commit] = [async () => ({ url: 'x' }), async () => {}]
  const definitions = () => [
    // @ts-expect-error the answer is not what its schema takes
    defineStagedTask({ name: 'a', input, answer, prepare, call: async () => ({ labels: [5] }), commit }),
    defineStagedTask({
      name: 'a',
      input,
      prepare,
      // @ts-expect-error prepare does not return that
      call: async ({ prepared }) => prepared.uri,
      commit,
    }),
    // @ts-expect-error there is no such option
    defineStagedTask({ name: 'a', input, prepare, call: async () => 1, commit, retries: 1 }),
    // @ts-expect-error commit is missing
    defineStagedTask({ name: 'a', input, prepare, call: async () => 1 }),
  ]
  expectTypeOf(definitions).toBeFunction()
})

test("a task's transaction has to be the engine's", () => {
  const engines = () => [
    createEngine({ url, tasks: [describeImage] }),
    createEngine({
      url,
      tasks: [describeImage, plain],
      transactor: pgTransactor(null as unknown as pg.Pool),
    }),
    createEngine({ url, tasks: [onOther, plain], transactor: otherTransactor }),
    // @ts-expect-error its transaction is another one
    createEngine({ url, tasks: [onOther], transactor: pgTransactor(null as unknown as pg.Pool) }),
    // @ts-expect-error its transaction is another one
    createEngine({ url, tasks: [describeImage], transactor: otherTransactor }),
    // @ts-expect-error the two need different transactions
    createEngine({ url, tasks: [describeImage, onOther] }),
    // @ts-expect-error without a transactor it is pg's
    createEngine({ url, tasks: [onOther] }),
  ]
  expectTypeOf(engines).toBeFunction()
})

test('tasks without a transaction of their own fit every engine', () => {
  const engines = () => [
    createEngine({ url, tasks: [plain] }),
    createEngine({ url, tasks: [plain], transactor: otherTransactor }),
    createEngine<OtherTx>({ url, tasks: [plain], transactor: otherTransactor }),
  ]
  expectTypeOf(engines).toBeFunction()
})

test("the engine's transactions are its transactor's", () => {
  const make = () => createEngine({ url, tasks: [plain, onOther], transactor: otherTransactor })
  const use = async (engine: ReturnType<typeof make>) => {
    const count = await engine.transaction(async (tx) => {
      expectTypeOf(tx).toEqualTypeOf<OtherTx>()
      await engine.enqueue(plain, 'x', { tx })
      return 5
    })
    expectTypeOf(count).toBeNumber()
    // @ts-expect-error a client of pg is not its transaction
    await engine.enqueue(plain, 'x', { tx: null as unknown as pg.PoolClient })
  }
  expectTypeOf(use).toBeFunction()
})
