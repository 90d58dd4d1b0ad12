import { setTimeout as delay } from 'node:timers/promises'
import { type Duration, milliseconds } from '../duration.ts'
import { TriphaseError } from '../errors.ts'
import {
  changeRun,
  createRun,
  endRun,
  findRun,
  latestRun,
  lookAgain,
  pauseRun,
  type RunRow,
  resumeRun,
  reviveRun,
} from '../store/sweep-run.ts'
import type { EngineStatements } from '../task.ts'
import { Marker, storable } from './marker.ts'
import { idempotencyKeyOf, RecordCalls } from './record-call.ts'
import { columnsOf, jsonOf, type PendingRecord, type RunOnApplication } from './record-table.ts'
import { ARROWS, type RunState } from './states.ts'
import { namesIn, type Sweep } from './sweep.ts'
import { checkedChanges, type SweepChanges } from './sweep-changes.ts'
import { type SweepStatus, statusOf } from './sweep-status.ts'
import { type MigrationFormat, tableMigration } from './table-migration.ts'

/** What a control works with. @internal */
export interface ControlParts {
  engine: EngineStatements
  application: RunOnApplication
  /** Says that there are new jobs in a queue. */
  announce(queue: string): void
}

/** What a run would have before it. */
export interface SweepPlan {
  pending: number
  done: number
  errors: number
  /** With `unitMs` given: how long it would take at the sweep's concurrency and rate. */
  estimatedMs: number | null
  /** With `unitCost` given. */
  estimatedCost: number | null
}

/** A record that a sample called. */
export interface SampledRecord {
  /** The key's columns, as texts. */
  key: string[]
  outcome: 'done' | 'error' | 'later'
  result: unknown
  error: string | null
  durationMs: number
  spent: number
  /** It was marked; only when asked for. */
  marked: boolean
}

/** Records whose errors say the same but for numbers and ids. */
export interface SweepErrorGroup {
  /** Names the group in `retryErrors`. */
  group: string
  /** The message without ids and numbers. */
  pattern: string
  count: number
  /** One of its messages, and the key of one of its records. */
  example: string
  exampleKey: string[]
}

const KEYS_AT_A_TIME = 1_000

/**
 * Begins, watches and changes the runs of a sweep, from any process. Made by `engine.sweep`.
 *
 * @example
 * const sweep = engine.sweep(describeFiles)
 * const { runId } = await sweep.run()
 * await sweep.pause('the provider is down')
 */
export class SweepControl {
  readonly #sweep: Sweep
  readonly #parts: ControlParts

  /** @internal use `engine.sweep` */
  constructor(sweep: Sweep, parts: ControlParts) {
    this.#sweep = sweep
    this.#parts = parts
  }

  /** What keeps the table from being swept, one line each; empty when it fits. */
  check(): Promise<string[]> {
    return this.#sweep.table.faults(this.#parts.application)
  }

  /**
   * The migration that adds what a sweep needs to the table, as SQL or as a file of a migration tool. Safe on large
   * tables: no rewrite, and indexes are built concurrently.
   *
   * @param options.partitions the names of all partitions, where the table is partitioned.
   * @example
   * engine.sweep(rateEvents).migration({ partitions: ['events_2025', 'events_2026'] })
   */
  migration(options: { format?: MigrationFormat; partitions?: readonly string[] } = {}): string {
    const { format = 'sql', partitions = [] } = options
    return tableMigration(this.#sweep.settings.names, format, partitions.map(namesIn))
  }

  /**
   * Counts the records, by reading the whole table.
   *
   * @param unit what one call takes and costs, for an estimate; `sample` tells both.
   */
  async plan(unit: { ms?: Duration; cost?: number } = {}): Promise<SweepPlan> {
    const { settings, table } = this.#sweep
    await table.require(this.#parts.application)
    const rows = await table.query<{ status: string; count: string }>(this.#parts.application, 'counts', [])
    const count = (status: string) => Number(rows.find((row) => row.status === status)?.count ?? 0)
    const pending = count('pending')
    const byCalls = unit.ms === undefined ? null : (pending * milliseconds(unit.ms)) / settings.concurrency
    const byRate = settings.rate === null ? 0 : (pending / settings.rate) * 1_000
    return {
      pending,
      done: count('done'),
      errors: count('error'),
      estimatedMs: byCalls === null ? null : Math.max(byCalls, byRate),
      estimatedCost: unit.cost === undefined ? null : pending * unit.cost,
    }
  }

  /**
   * Calls `each` for the first `count` pending records, in this process, once each.
   *
   * @param options.commit marks them, done or error. Default: the table stays as it is.
   */
  async sample(
    count: number,
    options: { commit?: boolean; signal?: AbortSignal } = {},
  ): Promise<SampledRecord[]> {
    const { table, settings } = this.#sweep
    const { application } = this.#parts
    const records = await table.pending(application, { after: null, upTo: null }, count)
    const signal = options.signal ?? new AbortController().signal
    // Somebody waits for it: what fails is told and not tried again.
    const marker = options.commit ? new Marker(table, application, null, signal, (write) => write()) : null
    const sampled = { id: 'sample', createdAt: new Date() }
    const spent = new Map<PendingRecord, number>()
    const calls = new RecordCalls(settings, signal, {
      idempotencyKey: ({ key }) => idempotencyKeyOf(this.#parts.engine.schema, sampled, key),
      spend: (record, amount) => void spent.set(record, (spent.get(record) ?? 0) + amount),
      leaked: () => {},
    })
    const results: SampledRecord[] = []
    const lanes = Array.from({ length: Math.min(settings.concurrency, records.length) }, async (_, lane) => {
      for (let index = lane; index < records.length; index += settings.concurrency) {
        const record = records[index] as PendingRecord
        const result = await this.#sampleOne(record, { calls, signal, marker })
        results[index] = { ...result, spent: spent.get(record) ?? 0 }
      }
    })
    await Promise.all(lanes).finally(() => calls.end())
    return results
  }

  /**
   * Begins a run, or goes on with the open one; a paused one stays paused.
   *
   * @throws {TriphaseError} `SWEEP_TABLE`, naming everything that is missing from the table.
   */
  async run(changes: SweepChanges = {}): Promise<{ runId: string; created: boolean; state: RunState }> {
    const { settings, table } = this.#sweep
    const { engine, application, announce } = this.#parts
    const checked = checkedChanges(changes)
    await table.require(application)
    const { name, queue, priority, concurrency, rate, budget } = settings
    const budgets = { callBudget: budget.calls, spendBudget: budget.spend }
    const wanted = { sweep: name, queue, priority, concurrency, rate, ...budgets, ...checked }
    let created = await createRun(engine, wanted)
    let open: string | null = null
    // A run that was open may have ended before it could be told.
    while (created === null && open === null) {
      open = await lookAgain(engine, name)
      if (open === null) created = await createRun(engine, wanted)
    }
    if (open !== null) {
      if (Object.keys(checked).length > 0) await changeRun(engine, open, checked)
      await reviveRun(engine, open)
    }
    announce(queue)
    const { state } = await this.status()
    return { runId: (created ?? open) as string, created: created !== null, state }
  }

  /**
   * How the latest run stands.
   *
   * @throws {TriphaseError} `NO_SWEEP_RUN` when there was none.
   */
  async status(): Promise<SweepStatus> {
    return statusOf(await this.#find())
  }

  /** Resolves when the run is over, paused, or interrupted; asks the database once a second at most. */
  async settled(options: { signal?: AbortSignal } = {}): Promise<SweepStatus> {
    for (let pauseMs = 50; ; pauseMs = Math.min(1_000, pauseMs * 2)) {
      const status = await this.status()
      if (!['planned', 'running', 'pausing', 'completing'].includes(status.state)) return status
      await delay(pauseMs, undefined, options.signal ? { signal: options.signal } : {})
    }
  }

  /** Begins no more calls, in no process; those under way are marked. False when no run could be paused. */
  async pause(reason: string | null = null): Promise<boolean> {
    return pauseRun(this.#parts.engine, await this.#latest(), ARROWS.pause.from, reason)
  }

  /** Lets a paused run go on. */
  async resume(changes: SweepChanges = {}): Promise<boolean> {
    const { engine, announce } = this.#parts
    const id = await this.#latest()
    const checked = checkedChanges(changes)
    if (Object.keys(checked).length > 0) await changeRun(engine, id, checked)
    const resumed = await resumeRun(engine, id, ARROWS.resume.from)
    if (resumed) announce(this.#sweep.settings.queue)
    return resumed
  }

  /** Ends the open run. Its records stay as they are; the next `run` goes on with those that are pending. */
  async cancel(reason: string | null = null): Promise<boolean> {
    const { from, to } = ARROWS.cancel
    return endRun(this.#parts.engine, await this.#latest(), from, to, reason)
  }

  /** Changes the latest run, at work or not; processes follow within a second. */
  async change(changes: SweepChanges): Promise<void> {
    await changeRun(this.#parts.engine, await this.#latest(), checkedChanges(changes))
  }

  /** The table's errors by what they say, the most frequent first. */
  async errorGroups(limit = 50): Promise<SweepErrorGroup[]> {
    const rows = await this.#sweep.table.query<{
      group: string
      pattern: string
      count: string
      example: string
      recordkey: unknown
    }>(this.#parts.application, 'errorGroups', [limit])
    return rows.map(({ recordkey, count, ...row }) => ({
      ...row,
      pattern: row.pattern ?? '',
      example: row.example ?? '',
      count: Number(count),
      exampleKey: JSON.parse(jsonOf(recordkey)),
    }))
  }

  /**
   * Records that are marked as errors, in the order of their keys, after one of them.
   *
   * @throws {TriphaseError} `INVALID_OPTIONS` for a key that has not the key's columns.
   */
  async errors(
    options: { group?: string; after?: readonly string[]; limit?: number } = {},
  ): Promise<{ key: string[]; message: string | null }[]> {
    const { group = null, after, limit = 100 } = options
    if (after) this.#requireKeys('after', [after])
    const values = [group, after ? JSON.stringify(after) : null, limit]
    const rows = await this.#sweep.table.query<{ recordkey: unknown; message: string | null }>(
      this.#parts.application,
      'errors',
      values,
    )
    return rows.map(({ recordkey, message }) => ({ key: JSON.parse(jsonOf(recordkey)), message }))
  }

  /**
   * Makes records that are marked as errors pending again, in short commits: all, one group, or those of some keys. An
   * open run finds them; otherwise the next one does.
   *
   * @returns how many.
   * @throws {TriphaseError} `INVALID_OPTIONS` for a key that has not the key's columns.
   */
  async retryErrors(
    which: { all: true } | { group: string } | { keys: readonly (readonly string[])[] },
  ): Promise<number> {
    const retried = 'keys' in which ? await this.#retryKeys(which.keys) : await this.#retryAll(which)
    if (retried > 0) await lookAgain(this.#parts.engine, this.#sweep.name)
    return retried
  }

  async #retryAll(which: { all: true } | { group: string }): Promise<number> {
    const group = 'group' in which ? which.group : null
    let [after, retried]: [string | null, number] = [null, 0]
    while (true) {
      const [row]: { last: string | null; count: number }[] = await this.#sweep.table.query(
        this.#parts.application,
        'retryErrors',
        [group, after, KEYS_AT_A_TIME],
      )
      retried += Number(row?.count ?? 0)
      if (!row?.last) return retried
      after = jsonOf(row.last)
    }
  }

  async #retryKeys(keys: readonly (readonly string[])[]): Promise<number> {
    this.#requireKeys('keys', keys)
    let retried = 0
    for (let from = 0; from < keys.length; from += KEYS_AT_A_TIME) {
      const some = keys.slice(from, from + KEYS_AT_A_TIME).map((key) => columnsOf(JSON.stringify(key)))
      const rows = await this.#sweep.table.query(this.#parts.application, 'retryKeys', [JSON.stringify(some)])
      retried += rows.length
    }
    return retried
  }

  #requireKeys(option: string, keys: readonly (readonly string[])[]): void {
    const columns = this.#sweep.settings.names.key
    const odd = keys.find((key) => key.length !== columns.length)
    if (odd) {
      throw new TriphaseError(
        'INVALID_OPTIONS',
        `${option}: ${JSON.stringify(odd)} is not a key of ${columns.join(', ')}: a text for each of these columns`,
      )
    }
  }

  async #sampleOne(
    record: PendingRecord,
    { calls, signal, marker }: { calls: RecordCalls; signal: AbortSignal; marker: Marker | null },
  ): Promise<Omit<SampledRecord, 'spent'>> {
    const { table } = this.#sweep
    const began = performance.now()
    const outcome = await calls.make(record, 1)
    if (outcome.kind === 'aborted') throw signal.reason
    const done = outcome.kind === 'done'
    const error = done ? null : outcome.reason
    const result = done ? table.resultText(outcome.json, outcome.value) : null
    const mark = { key: record.key, result, error: error === null ? null : storable(error) }
    const marked = marker !== null && outcome.kind !== 'later' && (await marker.add(mark)) === 'marked'
    return {
      key: JSON.parse(record.key),
      outcome: done ? 'done' : outcome.kind === 'later' ? 'later' : 'error',
      result: done ? outcome.value : null,
      error,
      durationMs: performance.now() - began,
      marked,
    }
  }

  async #latest(): Promise<string> {
    const id = await latestRun(this.#parts.engine, this.#sweep.name)
    if (id !== null) return id
    throw new TriphaseError('NO_SWEEP_RUN', `Sweep ${this.#sweep.name} has never run. Call run() first.`)
  }

  async #find(): Promise<RunRow> {
    return (await findRun(this.#parts.engine, await this.#latest())) as RunRow
  }
}
