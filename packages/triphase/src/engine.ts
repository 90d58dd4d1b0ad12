import { AsyncLocalStorage } from 'node:async_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import type { ConnectionAdvice } from './adviser.ts'
import {
  checkTransactionOptions,
  type EngineConfig,
  type EngineOptions,
  type QueueConfig,
  resolveConfig,
  resolveQueues,
} from './config.ts'
import { type Duration, milliseconds } from './duration.ts'
import { storedError, TriphaseError } from './errors.ts'
import { opening } from './guard/place.ts'
import { GuardPolicy } from './guard/policy.ts'
import { noteCheckout, outside } from './guard/scope.ts'
import { guarded, type TransactionOptions } from './guard/transaction.ts'
import type { Job, JobState } from './job.ts'
import { adviseOf, type ConnectionUse, checkConnections } from './maintenance/connection-check.ts'
import { lookForPooler, type Pooling, sameUserAndDatabase } from './maintenance/poolers.ts'
import type { Hint, Notifier } from './notifier.ts'
import { postgresNotifier } from './notifiers/postgres.ts'
import { type EnqueueOptions, Enqueuer } from './queue/enqueuer.ts'
import { HintOutbox } from './queue/hints.ts'
import { type ConnectionsSnapshot, Pools } from './queue/pools.ts'
import { type CancelOutcome, cancelJob } from './store/cancel.ts'
import { connectionFailure, type Database, isConnectionFailure } from './store/database.ts'
import { type InsertedJob, onEnginePool, type RunStatement } from './store/insert.ts'
import { countLiveJobs, findJob, type JobAttempt, jobAttempts } from './store/inspect.ts'
import { sumLedgers } from './store/ledger.ts'
import { migrate, requireCompatible, schemaFailure } from './store/migrate.ts'
import { notify } from './store/notify.ts'
import { pauseQueue, resumeQueue, setQueueConcurrency } from './store/queue.ts'
import { retryJob } from './store/retry-job.ts'
import { describeServer, type ServerDescription } from './store/server.ts'
import { executeInside, type Transactor } from './store/transactor.ts'
import { isSweep, type Sweep } from './sweeps/sweep.ts'
import { SweepControl } from './sweeps/sweep-control.ts'
import { isQueueName, QUEUE_NAME_RULE, type Task, type TaskReference } from './task.ts'
import { type TaskConnections, Telemetry } from './telemetry.ts'
import { Worker } from './worker.ts'

/** @see createEngine */
export interface CreateEngineOptions<Tx> extends EngineOptions {
  /** The tasks that this process can run. */
  tasks?: readonly Task<unknown, Tx>[]
  /** How the application's transactions are run. Default: `pg`, on a pool made from `application`. */
  transactor?: Transactor<Tx>
  /** How hints travel between processes; one of its own for each engine. Default: `postgresNotifier()`. */
  notifier?: Notifier
}

/** @see Engine.start */
export interface StartOptions {
  /** The queues to work on, each with its concurrency or settings, instead of the configured ones. */
  queues?: Record<string, number | QueueConfig>
}

/** Options of one enqueued job, with the transaction that it belongs to. */
export type EnqueueInTransaction<Tx> = EnqueueOptions & InTransaction<Tx>

/** The transaction that enqueued jobs belong to. */
export interface InTransaction<Tx> {
  /** The application's transaction: the job exists exactly if it commits. */
  tx?: Tx
  /** `'in-transaction'`: sends the hint from a foreign transaction too, at the price of the lock that NOTIFY takes at commit. */
  notify?: 'after-commit' | 'in-transaction'
}

const CLOSE_MS = 5_000

/** A notifier listens for one engine: started for a second one, it would leave the first one deaf. */
const notifierOwners = new WeakMap<Notifier, object>()

/**
 * Background jobs on a Postgres. Made by `createEngine`; one per process and schema.
 *
 * `Tx` is the application's kind of transaction.
 */
export class Engine<Tx> {
  /** What the engine reports of itself. */
  readonly telemetry: Telemetry = new Telemetry()
  readonly #config: EngineConfig
  /** The same, with the queues that it was started on. */
  #working: EngineConfig
  readonly #pools: Pools<Tx>
  readonly #database: Database
  readonly #transactor: Transactor<Tx>
  readonly #guard: GuardPolicy
  readonly #tasks: ReadonlyMap<string, Task<unknown, never>>
  readonly #notifier: Notifier
  readonly #outbox: HintOutbox
  readonly #enqueuer: Enqueuer
  readonly #hintsOf = new WeakMap<object, Hint[]>()
  /** Of the engine's own pool: outside of a transaction its clients are nobody's. */
  readonly #ended = new WeakSet<object>()
  /** Where jobs run, whoever made them known: where the engine was started, outside of every transaction. */
  #own = outside(() => AsyncLocalStorage.snapshot())
  #worker: Worker | undefined
  /** Null until the engine was started and has found out. */
  #pooling: Pooling | null = null
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined
  /** The notifier has been stopped: a hint would open its connection again, and nobody would close it. */
  #silent = false

  /** @internal use `createEngine` */
  constructor(options: CreateEngineOptions<Tx>) {
    const { tasks, transactor, notifier, ...rest } = options
    this.#config = resolveConfig(rest)
    this.#working = this.#config
    this.#tasks = tasksByName(tasks ?? [])
    this.#pools = new Pools(this.#config, this.telemetry, transactor)
    this.#database = this.#pools.database
    this.#transactor = this.#pools.transactor
    this.#guard = new GuardPolicy(this.#config.guard, (report) =>
      this.telemetry.emit('guard:offence', report),
    )
    this.#notifier = notifier ?? postgresNotifier()
    this.#outbox = new HintOutbox(this.#database, this.#notifier, this.telemetry)
    this.#enqueuer = new Enqueuer(this.#database, this.telemetry)
  }

  /** The schema of the engine's tables. */
  get schema(): string {
    return this.#config.schema
  }

  /** The sweeps among the engine's tasks. */
  get sweeps(): Sweep[] {
    return [...this.#tasks.values()].filter(isSweep)
  }

  /** The configured queues, by name; lengths of time are milliseconds. */
  get queues(): ReadonlyMap<string, { concurrency: number; timeoutMs: number }> {
    return this.#config.queues
  }

  /**
   * Brings the schema up to date. Safe to call from every process at every start.
   *
   * @returns the versions that were applied.
   * @throws {TriphaseError} `NO_PERMISSION`, `SCHEMA_TOO_NEW`, `MIGRATION_LOCKED`, `SERVER_TOO_OLD`, `INVALID_CONFIG`,
   * `CONNECTION_FAILED`, `LOGIN_REFUSED`.
   */
  async migrate(): Promise<number[]> {
    await describeServer(this.#database)
    return migrate(this.#database)
  }

  /**
   * Starts to work on the configured queues, or on others. An engine that has been started already stays with its queues.
   *
   * @throws {TriphaseError} `INVALID_CONFIG`, `MIGRATION_NEEDED`, `SCHEMA_TOO_NEW`, `SERVER_TOO_OLD`, `NO_PERMISSION`,
   * `CONNECTION_FAILED`, `LOGIN_REFUSED`.
   * @example
   * await engine.start({ queues: { reports: 2 } })
   */
  start(options: StartOptions = {}): Promise<void> {
    if (this.#stopping) return Promise.reject(wasStopped())
    this.#starting ??= this.#start(options).catch((error: unknown) => {
      this.#starting = undefined
      this.#disownNotifier()
      throw error
    })
    return this.#starting
  }

  /**
   * Stops in order: claims nothing more, lets running jobs finish for the grace period, then fires their signals
   * and hands back what is left without burning an attempt. Closes every connection that the engine opened.
   *
   * @param options.graceMs instead of the configured grace period, in milliseconds; `Infinity` waits for all of them.
   */
  stop(options: { graceMs?: number } = {}): Promise<void> {
    this.#stopping ??= this.#stop(options.graceMs ?? this.#config.graceMs)
    return this.#stopping
  }

  /**
   * Runs `work` in a transaction of the application. Jobs that it enqueues with `{ tx }` exist exactly if it commits,
   * and their hints are sent after that.
   *
   * @param options.allow hosts that may be called meanwhile, or true for anything (see docs/guard.md).
   * @param options.maxHold instead of the engine's.
   * @throws {TriphaseError} `CALL_IN_TRANSACTION`, `SECOND_CHECKOUT` where the guard refuses: then it
   * was rolled back; `INVALID_OPTIONS`, naming each wrong option; `ENGINE_NOT_RUNNING` after `stop`.
   * @example
   * await engine.transaction(async (tx) => {
   *   await tx.query('INSERT INTO orders (id) VALUES ($1)', [id])
   *   await engine.enqueue(sendReceipt, { orderId: id }, { tx })
   * })
   */
  async transaction<Value>(
    work: (tx: Tx) => Promise<Value>,
    options: TransactionOptions = {},
  ): Promise<Value> {
    checkTransactionOptions(options)
    const opened = opening(this.#guard, this.transaction)
    return this.#pools.holds.during({ jobId: null, task: null, phase: null, opened }, (began) =>
      this.#transact(
        (tx) => {
          began()
          return work(tx)
        },
        options,
        opened,
      ),
    )
  }

  /**
   * Writes a job.
   *
   * @returns its id, and whether it was written (false: another job holds its unique key, and the id is that job's).
   * @throws {TriphaseError} `INVALID_INPUT`, naming every fault of input and options; `INVALID_OPTIONS` where `tx` has ended;
   * nothing is written.
   * @example
   * await engine.enqueue(sendReceipt, { orderId: '17' }, { delay: '5m' })
   */
  async enqueue<RawInput>(
    task: TaskReference<RawInput>,
    input: NoInfer<RawInput>,
    options: EnqueueInTransaction<Tx> = {},
  ): Promise<InsertedJob> {
    const { tx, notify: when, ...rest } = options
    const [inserted] = await this.#enqueue(task, [{ input, options: rest }], {
      tx,
      notify: when,
    } as InTransaction<Tx>)
    return inserted as InsertedJob
  }

  /**
   * Writes many jobs of one task, all or none, in one statement.
   *
   * @returns what `enqueue` returns for each, in the order given.
   * @example
   * await engine.enqueueMany(sendReceipt, orders.map(({ id }) => ({ input: { orderId: id } })))
   */
  enqueueMany<RawInput>(
    task: TaskReference<RawInput>,
    jobs: readonly ({ input: NoInfer<RawInput> } & EnqueueOptions)[],
    options: InTransaction<Tx> = {},
  ): Promise<InsertedJob[]> {
    const items = jobs.map(({ input, ...rest }) => ({
      input: input as RawInput,
      options: rest as EnqueueOptions,
    }))
    return this.#enqueue(task, items, options)
  }

  /** A job, live or finished; null when there is none or history no longer has it. */
  job(id: string): Promise<Job | null> {
    return isJobId(id) ? this.#inSchema(findJob(this.#database, id)) : Promise.resolve(null)
  }

  /** The kept attempts of a job, oldest first: failures, crashes, and the ledger of each staged job. */
  attempts(id: string): Promise<JobAttempt[]> {
    return isJobId(id) ? this.#inSchema(jobAttempts(this.#database, id)) : Promise.resolve([])
  }

  /**
   * What jobs did with the application's connections, on all processes, by task and queue: the sums of the attempts that
   * history keeps (`attempts`) and that held one. Phases are summed over the newest 20,000 of them, and say of how many
   * claims. Reads all attempts of the days that `last` touches, on a connection of the engine: about 0.2 s, and 0.3 s for
   * each million of them. For reports, not for every request.
   *
   * @param options.last how far back, at most as far as `retention` reaches. Default 24 h.
   * @throws {TriphaseError} `INVALID_DURATION`; `STATEMENT_TIMEOUT` after 15 s.
   * @example
   * for (const { task, queue, claims, holdMs } of await engine.ledger({ last: '1h' }))
   *   console.log(`${task} in ${queue} held a connection for ${holdMs / claims} ms a claim`)
   */
  async ledger(options: { last?: Duration } = {}): Promise<TaskConnections[]> {
    return this.#inSchema(sumLedgers(this.#database, milliseconds(options.last ?? '24h')))
  }

  /**
   * What `adviseConnections` says of this engine: its queues at full use, with calls and holds as history has them, its
   * pools, the processes that have its name, and the server's `max_connections` (not behind a pooler in transaction mode).
   *
   * @param options.last how far back, as for `ledger`.
   * @returns null when no job of its queues has used a connection in that time.
   * @throws {TriphaseError} as `ledger`.
   * @example
   * const found = await engine.adviseConnections()
   * if (found && !found.works) console.warn(found.problems.join('\n'))
   */
  async adviseConnections(options: { last?: Duration } = {}): Promise<ConnectionAdvice | null> {
    const tasks = await this.ledger(options)
    // An engine that was not started has not looked which kind of pooler it is.
    const pooled = this.#pooling ? this.#pooling === 'transaction' : await this.#behindPooler()
    return adviseOf(this.#connectionUse, tasks, !pooled)
  }

  /** How many live jobs there are of each queue and state. Reads all of them: for reports, not for every request. */
  counts(): Promise<{ queue: string; state: JobState; count: number }[]> {
    return this.#inSchema(countLiveJobs(this.#database))
  }

  /**
   * Cancels a job: a waiting one at once, a running one by firing its signal, wherever it runs.
   *
   * @returns `'cancelled'`, `'requested'` (it runs, and has been told), or `'not-found'` (no such live job).
   */
  async cancel(id: string): Promise<CancelOutcome> {
    if (!isJobId(id)) return 'not-found'
    const reason = new TriphaseError('CANCELLED', 'cancelled on request')
    const error = JSON.stringify({ ...storedError(reason), stack: undefined })
    const outcome = await this.#inSchema(cancelJob(this.#database, id, error))
    if (outcome === 'requested') this.#send([{ kind: 'cancel', jobId: id }])
    return outcome
  }

  /**
   * Runs a discarded or cancelled job again, with a fresh set of attempts and the answers that were stored for it, or
   * a waiting one now. A job whose unique key is held by another live job stays as it is.
   *
   * @returns whether it was made available; false where it was so already, is running or completed, or is not known.
   */
  async retry(id: string): Promise<boolean> {
    const queue = isJobId(id) ? await this.#inSchema(retryJob(this.#database, id)) : null
    if (queue !== null) this.#send([{ kind: 'available', queue }])
    return queue !== null
  }

  /** Stops all processes from claiming a queue's jobs; running jobs go on. */
  async pauseQueue(queue: string): Promise<void> {
    await this.#inSchema(pauseQueue(this.#database, checkedQueue(queue)))
    this.#send([{ kind: 'queue-changed', queue }])
  }

  async resumeQueue(queue: string): Promise<void> {
    await this.#inSchema(resumeQueue(this.#database, checkedQueue(queue)))
    this.#send([{ kind: 'queue-changed', queue }])
  }

  /** Sets a queue's concurrency per process for all processes, until it is set to null: then each has its configured one again. */
  async setQueueConcurrency(queue: string, concurrency: number | null): Promise<void> {
    if (
      concurrency !== null &&
      !(Number.isInteger(concurrency) && concurrency >= 0 && concurrency < 2 ** 31)
    ) {
      throw new TriphaseError('INVALID_OPTIONS', 'concurrency: a whole number from 0 to 2147483647, or null')
    }
    await this.#inSchema(setQueueConcurrency(this.#database, checkedQueue(queue), concurrency))
    this.#send([{ kind: 'queue-changed', queue }])
  }

  /**
   * Begins, watches and changes the runs of a sweep. This process need not work on it.
   *
   * @example
   * await engine.sweep(describeFiles).run()
   */
  sweep(sweep: Sweep): SweepControl {
    const text = (sql: string) => this.#database.text(sql)
    return new SweepControl(sweep, {
      engine: {
        schema: this.schema,
        text,
        query: (sql, values) => this.#inSchema(this.#database.query(sql, values)),
      },
      application: {
        query: (sql, values = []) => this.#query(sql, values).catch(explainedFailure),
        schema: this.schema,
        text,
      },
      announce: (queue) => this.#send([{ kind: 'available', queue }]),
    })
  }

  /**
   * Connections at this moment, and what has been done with them since the engine was made.
   *
   * @example
   * const { application } = engine.connections()
   * if (application.oldest && application.oldest.heldMs > 1_000) console.warn(application.oldest)
   */
  connections(): ConnectionsSnapshot {
    return this.#pools.snapshot
  }

  async #start(options: StartOptions): Promise<void> {
    if (options.queues) this.#working = { ...this.#config, queues: resolveQueues(options.queues) }
    this.#ownNotifier()
    const server = await describeServer(this.#database)
    await requireCompatible(this.#database)
    const worker = new Worker({
      config: this.#working,
      database: this.#database,
      heartbeatDatabase: this.#pools.heartbeatDatabase,
      session: this.#pools.session,
      application: this.#hinting() as Transactor<unknown>,
      tasks: this.#tasks,
      notifier: this.#notifier,
      outbox: this.#outbox,
      holds: this.#pools.holds,
      telemetry: this.telemetry,
    })
    this.#own = outside(() => AsyncLocalStorage.snapshot())
    await this.#own(() => worker.start())
    this.#worker = worker
    void this.#own(() => this.#lookAround(server))
    void this.#own(() => this.#checkSweeps())
  }

  #ownNotifier(): void {
    const owner = notifierOwners.get(this.#notifier) ?? this
    if (owner !== this)
      throw new TriphaseError(
        'INVALID_CONFIG',
        'notifier: another engine uses this one. Make one for each engine.',
      )
    notifierOwners.set(this.#notifier, this)
  }

  #disownNotifier(): void {
    if (notifierOwners.get(this.#notifier) === this) notifierOwners.delete(this.#notifier)
  }

  /** What it finds is for people: it runs beside the work, and keeps nothing from starting. */
  async #lookAround(server: ServerDescription): Promise<void> {
    const { engine, application } = this.#config
    try {
      this.#pooling = await lookForPooler({
        server,
        telemetry: this.telemetry,
        engine: onEnginePool(this.#database),
        heartbeat: onEnginePool(this.#pools.heartbeatDatabase),
        application: this.#pools.onApplication,
        sameUrl: this.#pools.ownsApplication && sameUserAndDatabase(engine.url, application.url),
      })
      await checkConnections(this.#connectionUse, this.telemetry, this.#pooling !== 'transaction')
    } catch (error) {
      if (!this.#stopping) this.#failed('look at the server', error)
    }
  }

  async #behindPooler(): Promise<boolean> {
    return (await describeServer(this.#database)).behindPooler
  }

  get #connectionUse(): ConnectionUse {
    const { ownsApplication, session } = this.#pools
    const listens = this.#notifier.name === 'postgres' && session === null
    return { config: this.#working, database: this.#database, ownsApplication, listens }
  }

  /** A table that does not fit keeps its own sweep from running, and nothing else from starting. */
  async #checkSweeps(): Promise<void> {
    for (const task of this.#tasks.values()) {
      if (!isSweep(task)) continue
      const faults = await this.sweep(task)
        .check()
        .catch((error: Error) => [error.message])
      if (faults.length === 0 || this.#stopping) continue
      const message = `Sweep ${task.name} cannot run: ${faults.join('; ')}.`
      this.telemetry.emit('config:warning', { message })
    }
  }

  async #stop(graceMs: number): Promise<void> {
    await this.#starting?.catch(() => {})
    await this.#worker?.stop(graceMs)
    await this.#outbox.flushed()
    // Here too: an engine that only enqueued has no worker, and the last hints may have opened a connection again.
    this.#silent = true
    await this.#notifier.stop().catch((error: unknown) => this.#failed('stop notifier', error))
    this.#disownNotifier()
    // A pool waits for what is checked out, and a handler that ignores its signal may never give it back.
    await Promise.race([this.#pools.end(), delay(CLOSE_MS, undefined, { ref: false })])
  }

  async #transact<Value>(
    work: (tx: Tx) => Promise<Value>,
    options: TransactionOptions = {},
    opened?: () => string,
  ): Promise<Value> {
    if (this.#silent && this.#pools.ownsApplication) throw wasStopped()
    const [policy, source, hints] = [this.#guard, this.#transactor, [] as Hint[]]
    const value = await guarded({ policy, source, options, opened }, (inside) =>
      this.#transactor.transaction((tx) => {
        this.#hintsOf.set(tx as object, hints)
        this.#ended.delete(tx as object)
        return inside(async () => work(tx)).finally(() => {
          this.#hintsOf.delete(tx as object)
          if (this.#pools.ownsApplication) this.#ended.add(tx as object)
        })
      }),
    )
    this.#send(hints)
    return value
  }

  async #enqueue<RawInput>(
    task: TaskReference<RawInput>,
    items: readonly { input: RawInput; options: EnqueueOptions }[],
    { tx, notify: when }: InTransaction<Tx>,
  ): Promise<InsertedJob[]> {
    // A reference to a task has no functions to run it.
    if (!task?.input) throw new TriphaseError('INVALID_INPUT', `What to enqueue is ${noTask(task)}`)
    if (items.length === 0) return []
    const run = tx === undefined ? undefined : this.#inside(tx)
    const { inserted, hints } = await this.#inSchema(this.#enqueuer.enqueue(run, task, items))
    if (tx === undefined) this.#send(hints)
    else this.#hintsOf.get(tx as object)?.push(...hints)
    if (run !== undefined && when === 'in-transaction') await notify(run, this.#config.schema, hints)
    return inserted
  }

  /** Where nobody has started this engine, nobody has looked whether its tables are there. */
  async #inSchema<Value>(statement: Promise<Value>): Promise<Value> {
    try {
      return await statement
    } catch (error) {
      throw schemaFailure(error, this.schema)
    }
  }

  /** One statement on the application's pool. */
  #query(text: string, values: readonly unknown[]): Promise<{ rows: unknown[] }> {
    const transactor = this.#transactor
    if (transactor.query) return transactor.query(text, values)
    return transactor.transaction((tx) => transactor.execute(tx, text, values))
  }

  /** The application's transactor, with hints sent after each commit: also for jobs that a staged task enqueues. */
  #hinting(): Transactor<Tx> {
    const transactor = this.#transactor
    const query: Transactor<Tx>['query'] = (text, values) => {
      noteCheckout(transactor)
      return (transactor.query as NonNullable<typeof query>)(text, values)
    }
    return {
      transaction: (work) => this.#transact(work),
      execute: (tx, text, values) => transactor.execute(tx, text, values),
      ...(transactor.query ? { query } : {}),
    }
  }

  #inside(tx: Tx): RunStatement {
    return async (text, values) => {
      // Its connection may be in somebody else's transaction by now, which would take the job along or roll it back.
      if (this.#ended.has(tx as object)) throw hasEnded()
      return executeInside(this.#transactor, tx, this.#database.text(text), values)
    }
  }

  /** To this process's own worker at once, to the others by the notifier. */
  #send(hints: readonly Hint[]): void {
    if (this.#silent) return
    this.#own(() => {
      for (const hint of hints) this.#worker?.receive(hint)
      this.#outbox.add(hints)
    })
  }

  #failed(statement: string, error: unknown): void {
    this.telemetry.emit('statement:failed', { statement, error: storedError(error), retryInMs: null })
  }
}

/**
 * Makes an engine. It opens no connection before something is asked of it.
 *
 * @throws {TriphaseError} `INVALID_CONFIG`, naming every fault of the options at once.
 * @example
 * const engine = createEngine({
 *   url: process.env.DATABASE_URL,
 *   tasks: [describeImage, sendReceipt],
 *   queues: { processing: 12, default: 2 },
 * })
 * await engine.migrate()
 * await engine.start()
 */
export function createEngine<Tx = pg.PoolClient>(
  options: CreateEngineOptions<Tx> & NeedsTransactor<Tx>,
): Engine<TransactionOf<Tx>> {
  return new Engine(options) as Engine<unknown> as Engine<TransactionOf<Tx>>
}

/** Tasks without transactions leave it open which kind there is: then it is the default. */
export type TransactionOf<Tx> = unknown extends Tx ? pg.PoolClient : Tx

/** The default transactions are `pg`'s: tasks that were defined for others need their transactor. */
export type NeedsTransactor<Tx> = pg.PoolClient extends Tx ? unknown : { transactor: Transactor<Tx> }

function tasksByName(tasks: readonly Task<unknown, never>[]): Map<string, Task<unknown, never>> {
  // As of a module that imports this one, too.
  const missing = tasks.findIndex((task) => typeof task?.execute !== 'function')
  if (missing >= 0) {
    throw new TriphaseError('INVALID_CONFIG', `tasks.${missing}: ${noTask(tasks[missing])}`)
  }
  const byName = new Map(tasks.map((task) => [task.name, task]))
  if (byName.size < tasks.length) {
    const names = tasks.map(({ name }) => name)
    const twice = names.filter((name, index) => names.indexOf(name) !== index)
    throw new TriphaseError(
      'INVALID_CONFIG',
      `Two tasks have the same name: ${twice.join(', ')}. Names are stored with jobs and must tell tasks apart.`,
    )
  }
  return byName
}

function noTask(given: unknown): string {
  const what = given === undefined ? 'undefined, as in a circle of imports' : typeof given
  return `no task (of defineTask, defineStagedTask or defineSweep) but ${what}.`
}

/** An application's connection fails in the words of its driver. */
function explainedFailure(error: unknown): never {
  throw isConnectionFailure(error) ? connectionFailure(error) : error
}

function wasStopped(): TriphaseError {
  return new TriphaseError('ENGINE_NOT_RUNNING', 'This engine was stopped. Make another one to start again.')
}

function hasEnded(): TriphaseError {
  return new TriphaseError(
    'INVALID_OPTIONS',
    'tx: this transaction has ended, and the job was not written. Await enqueue before the end of the work that opened the transaction.',
  )
}

function checkedQueue(name: string): string {
  if (isQueueName(name)) return name
  throw new TriphaseError('INVALID_OPTIONS', `queue: ${QUEUE_NAME_RULE}`)
}

function isJobId(id: string): boolean {
  return /^\d{1,18}$/.test(id)
}
