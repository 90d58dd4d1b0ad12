import type { StandardSchemaV1 } from '@standard-schema/spec'
import type pg from 'pg'
import { RejectedAnswer, TriphaseError } from './errors.ts'
import { Place } from './guard/place.ts'
import { nameTransaction } from './guard/scope.ts'
import {
  type AbandonContext,
  complete,
  type ExecutionContext,
  isStorableText,
  type JobContext,
  jsonText,
  Outcome,
  STORABLE_TEXT,
  type Task,
  type TaskOptions,
  taskOf,
  validated,
  WHOLE_ANSWER,
} from './task.ts'

/** What `prepare` gets. */
export interface PrepareContext<Input, Tx> extends JobContext<Input> {
  /** The transaction; committed when `prepare` returns. */
  readonly tx: Tx
}

/** What `call` gets. No transaction is open and no connection is held. */
export interface CallContext<Input, Prepared> extends JobContext<Input> {
  readonly prepared: Prepared
  /**
   * Runs a part of the call whose answer is stored by itself: after a crash the steps that have an answer are not
   * run again.
   *
   * @param name 1 to 500 characters, and unique within the call: `describe page 3`, not `describe`.
   * @throws {TriphaseError} `INVALID_OPTIONS`, before `work` begins, for a name that cannot be stored or is taken. A
   * step that failed may be run again.
   */
  step<Answer>(name: string, work: () => Promise<Answer>): Promise<Answer>
  /** Runs one statement on the application's pool; the connection is given back at once. */
  query(text: string, values?: readonly unknown[]): Promise<{ rows: unknown[] }>
}

/** What `commit` gets. */
export interface CommitContext<Input, Prepared, Answer, Tx> extends JobContext<Input> {
  readonly tx: Tx
  readonly prepared: Prepared
  /** What `call` returned, as JSON carries it: the same on the first attempt as on a later one. */
  readonly answer: Answer
}

/** `prepare` found that nothing is left to do: the job is completed with `result`, without call and commit. */
export class AlreadyDone {
  readonly result: unknown
  constructor(result: unknown) {
    this.result = result
  }
}

/** Return it from `prepare` when the work is done already. */
export function alreadyDone(result?: unknown): AlreadyDone {
  return new AlreadyDone(result)
}

/** `prepare` found the call's answer in the application's own tables: `call` is skipped. */
export class KnownAnswer<Prepared, RawAnswer> {
  readonly prepared: Prepared
  readonly answer: RawAnswer
  constructor(prepared: Prepared, answer: RawAnswer) {
    this.prepared = prepared
    this.answer = answer
  }
}

/** Return it from `prepare` when the answer is known without a call. */
export function knownAnswer<Prepared, RawAnswer>(
  prepared: Prepared,
  answer: RawAnswer,
): KnownAnswer<Prepared, RawAnswer> {
  return new KnownAnswer(prepared, answer)
}

/** @see defineStagedTask */
export interface StagedTaskDefinition<RawInput, Input, Prepared, RawAnswer, Answer, Tx> extends TaskOptions {
  name: string
  /** Any Standard Schema. Checked when enqueueing and again before running. */
  input: StandardSchemaV1<RawInput, Input>
  /** Schema of the stored answer, checked before `commit`: one that does not fit is dropped and the call is made again. */
  answer?: StandardSchemaV1<RawAnswer, Answer>
  /** A short transaction: find or create what the call is about. Runs at every attempt, so it must be idempotent. */
  prepare: (
    context: PrepareContext<Input, Tx>,
  ) => Promise<Prepared | AlreadyDone | KnownAnswer<Prepared, RawAnswer> | Outcome>
  /**
   * The slow call. Holds no connection. Its answer is stored before anything else happens, and then never asked for again.
   * An outcome (`snooze`, `cancel`, `discard`) is no answer: nothing is stored, and the attempt ends with it.
   */
  call: (context: CallContext<Input, Prepared>) => Promise<RawAnswer | Outcome>
  /**
   * A short transaction: write the answer. Commits together with the job's completion. Its return value is the job's result;
   * where that is a `snooze`, `cancel` or `discard` it is rolled back, and the attempt ends with it.
   */
  commit: (context: CommitContext<Input, Prepared, Answer, Tx>) => unknown
  /**
   * A short transaction that commits together with the job's end when it is discarded or, while running, cancelled:
   * mark what `prepare` began as failed. Should it throw, the job ends without it. It does not run for a job that is
   * cancelled while waiting or discarded because its processes kept dying.
   */
  abandon?: (context: AbandonContext<RawInput, Tx>) => unknown
}

/**
 * Defines a task in three phases: a short transaction, a slow call during which no connection is held, and a short
 * transaction that commits together with the job's completion. Whatever fails after the call's answer was stored,
 * the call is not made again.
 *
 * `Tx` is the transaction of the application's `Transactor`, a `pg` client unless said otherwise (see
 * `stagedTasksFor`).
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const describeImage = defineStagedTask({
 *   name: 'describe-image',
 *   input: z.object({ imageId: z.string() }),
 *   prepare: async ({ tx, input }) => findImage(tx, input.imageId),
 *   call: async ({ prepared, signal, idempotencyKey }) => model.describe(prepared.url, { signal, idempotencyKey }),
 *   commit: async ({ tx, input, answer }) => saveDescription(tx, input.imageId, answer),
 * })
 */
export function defineStagedTask<
  RawInput,
  Input,
  Prepared,
  RawAnswer,
  Answer = RawAnswer,
  Tx = pg.PoolClient,
>(definition: StagedTaskDefinition<RawInput, Input, Prepared, RawAnswer, Answer, Tx>): Task<RawInput, Tx> {
  const { name, input, answer: _answer, prepare, call, commit, abandon, ...options } = definition
  const names = transactionNames(name, new Place(defineStagedTask))
  const execute = (context: ExecutionContext<Tx>) => new StagedRun(definition, context, names).run()
  const abandoned = (context: AbandonContext<RawInput, Tx>) => {
    nameTransaction(names.abandon, context.job.id)
    return abandon?.(context)
  }
  const handlers = { prepare, call, commit, ...(abandon && { abandon }) }
  return taskOf(
    name,
    input,
    options,
    handlers,
    execute,
    abandon && (abandoned as Task<RawInput, Tx>['abandon']),
  )
}

type TransactionNames = Record<'prepare' | 'commit' | 'abandon', () => string>

/** How the guard calls a task's transactions: their code is the task's, whatever opens them. */
function transactionNames(task: string, defined: Place): TransactionNames {
  const nameOf = (phase: string) => () => {
    const { line } = defined
    return `for ${phase} of task ${task}${line === undefined ? '' : ` (defined at ${line})`}`
  }
  return { prepare: nameOf('prepare'), commit: nameOf('commit'), abandon: nameOf('abandon') }
}

/**
 * `defineStagedTask` for another kind of transaction than `pg`'s.
 *
 * @example
 * const defineTask = stagedTasksFor<Transaction<DB>>() // Kysely
 */
export function stagedTasksFor<Tx>(): <RawInput, Input, Prepared, RawAnswer, Answer = RawAnswer>(
  definition: StagedTaskDefinition<RawInput, Input, Prepared, RawAnswer, Answer, Tx>,
) => Task<RawInput, Tx> {
  return defineStagedTask
}

class StagedRun<RawInput, Input, Prepared, RawAnswer, Answer, Tx> {
  readonly #definition: StagedTaskDefinition<RawInput, Input, Prepared, RawAnswer, Answer, Tx>
  readonly #context: ExecutionContext<Tx>
  readonly #job: JobContext<Input>
  readonly #names: TransactionNames
  /** Steps of this call that are under way or have their answer. */
  readonly #steps = new Set<string>()

  constructor(
    definition: StagedTaskDefinition<RawInput, Input, Prepared, RawAnswer, Answer, Tx>,
    context: ExecutionContext<Tx>,
    names: TransactionNames,
  ) {
    this.#definition = definition
    this.#context = context
    this.#names = names
    const { input, job, signal, idempotencyKey } = context
    this.#job = { input: input as Input, job, signal, idempotencyKey }
  }

  async run(): Promise<Outcome> {
    const context = this.#context
    context.enterPhase('prepare')
    const found = await context.transaction((tx) => {
      nameTransaction(this.#names.prepare, this.#job.job.id)
      return this.#definition.prepare({ ...this.#job, tx })
    }, this.#names.prepare)
    if (found instanceof AlreadyDone) return complete(found.result)
    if (found instanceof Outcome) return found
    context.signal.throwIfAborted()
    const known = found instanceof KnownAnswer
    const prepared = known ? found.prepared : found
    context.enterPhase('call')
    const raw = known ? JSON.parse(jsonText(found.answer, 'The answer')) : await this.#answer(prepared)
    if (raw instanceof Outcome) return raw
    context.stopTimer()
    context.enterPhase('commit')
    return this.#commit(prepared, raw)
  }

  /** The stored answer where there is one, else the call's, stored; or the outcome that the call has instead. */
  async #answer(prepared: Prepared): Promise<unknown> {
    const stored = await this.#stored(WHOLE_ANSWER)
    if (stored !== undefined) return JSON.parse(stored)
    const answer = await this.#definition.call({
      ...this.#job,
      prepared,
      step: (name, work) => this.#step(name, work),
      query: (text, values) => this.#context.query(text, values),
    })
    if (answer instanceof Outcome) return answer
    // The time limit is the call's: an answer that was paid for is stored, however long that takes.
    this.#context.stopTimer()
    return this.#store(WHOLE_ANSWER, answer)
  }

  /** Under a taken name the work would be paid for, and the other step's answer returned. */
  async #step<Value>(name: string, work: () => Promise<Value>): Promise<Value> {
    const fault = this.#stepFault(name)
    if (fault) throw new TriphaseError('INVALID_OPTIONS', fault)
    this.#steps.add(name)
    try {
      const stored = await this.#stored(name)
      if (stored !== undefined) return JSON.parse(stored)
      this.#context.signal.throwIfAborted()
      return (await this.#store(name, await work())) as Value
    } catch (error) {
      this.#steps.delete(name)
      throw error
    }
  }

  #stepFault(name: string): string | undefined {
    if (!isStorableText(name)) return `The name of a step has ${STORABLE_TEXT}.`
    if (name === WHOLE_ANSWER) return `A step cannot be named "${WHOLE_ANSWER}".`
    if (!this.#steps.has(name)) return undefined
    return `Two steps of one call are named ${JSON.stringify(name)}: give each a name of its own, such as one with a number.`
  }

  /** Only an earlier claim can have stored an answer; while it may still be running, each look is a new one. */
  async #stored(step: string): Promise<string | undefined> {
    if (this.#context.claim.claimNo === 1) return undefined
    return this.#context.storedAnswer(step)
  }

  async #store(step: string, answer: unknown): Promise<unknown> {
    if (answer instanceof Outcome) {
      const fault = `Step ${JSON.stringify(step)} returned the outcome ${answer.kind}, which is no answer: return it from call.`
      throw new TriphaseError('INVALID_OPTIONS', fault)
    }
    return JSON.parse(await this.#context.storeAnswer(step, jsonText(answer, `The answer of step ${step}`)))
  }

  async #commit(prepared: Prepared, raw: unknown): Promise<Outcome> {
    const { commit, answer: schema } = this.#definition
    let other: Outcome | undefined
    const write = async (tx: Tx) => {
      nameTransaction(this.#names.commit, this.#job.job.id)
      const answer = (schema ? await fitting(schema, raw) : raw) as Answer
      const result = await commit({ ...this.#job, tx, prepared, answer })
      if (!(result instanceof Outcome)) return result
      if (result.kind === 'complete') return result.result
      other = result
      throw new Error(
        `commit returned the outcome ${result.kind}: its rows and completed go together, or not at all`,
      )
    }
    try {
      return await this.#context.commit(write, this.#names.commit)
    } catch (error) {
      if (other) return other
      throw error
    }
  }
}

async function fitting<Answer>(schema: StandardSchemaV1<unknown, Answer>, raw: unknown): Promise<Answer> {
  try {
    return await validated(schema, raw, 'INVALID_ANSWER', 'The answer')
  } catch (cause) {
    throw new RejectedAnswer((cause as Error).message, { cause })
  }
}
