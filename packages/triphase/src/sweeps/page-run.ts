import { backoffDelay } from '../backoff.ts'
import { untilDone } from '../retry.ts'
import {
  beatPage,
  type FailedTry,
  finishPage,
  keepTries,
  noteCalling,
  type OpenPage,
  type RecordTries,
} from '../store/sweep-page.ts'
import { complete, type ExecutionContext, type Outcome, snooze } from '../task.ts'
import { Gatherer } from './gatherer.ts'
import { Marker, mayPass, storable } from './marker.ts'
import { PageReader } from './page-reader.ts'
import { Permit } from './permit.ts'
import { type CallOutcome, callRecord, idempotencyKeyOf } from './record-call.ts'
import type { PendingRecord, RecordTable, RunOnApplication } from './record-table.ts'
import type { SweepSettings } from './sweep.ts'

/** Pages at work in this process, by run: slots that one gives back are another's at once. */
const atWork = new Map<string, Set<PageRun>>()

/** What a page works with. */
export interface PageParts {
  settings: SweepSettings
  table: RecordTable
  context: ExecutionContext<unknown>
  application: RunOnApplication
  pageId: string
  page: OpenPage
  run: { id: string; createdAt: Date }
  tries: Map<string, RecordTries>
  /** Ends the run: no record can be blamed for this. */
  fail(error: unknown): Promise<void>
}

/** Every so often a page says how it is doing, and learns what it may do. */
const BEAT_MS = 1_000
/** A shorter wait than this for a record's next try is waited for; for a longer one the job sleeps. */
const SHORT_WAIT_MS = 500
/** A page without slots gives its place in the queue to others for a while. */
const STARVED_MS = 3_000
/** A record that was noted at so many crashes is taken to be their cause. */
const MOST_CRASHES = 3

interface RecordWaiting {
  record: PendingRecord
  /** Monotonic milliseconds. */
  dueAt: number
}

/**
 * One claim of a page's job: reads the pending records of a range of keys in small portions, and calls as many at a
 * time as the run lets it. A record's slot is free when its mark has committed.
 */
export class PageRun {
  readonly #parts: PageParts
  readonly #permit = new Permit()
  readonly #marker: Marker
  readonly #failures: Gatherer<FailedTry, undefined>
  readonly #open = new Set<Promise<void>>()
  readonly #tries: Map<string, RecordTries>
  readonly #calling = new Set<string>()
  readonly #retrying = new Set<string>()
  /** Calls that ended while records were read: what was read may still say that they are pending. */
  readonly #endedWhileReading = new Set<string>()
  readonly #reader: PageReader
  #waiting: RecordWaiting[] = []
  #beating: Promise<void> | undefined
  #beatTimer: NodeJS.Timeout | undefined
  #starvedSince: number | undefined
  #cautious: number
  #calls: number
  #spent: number
  /** Calls that ignored their signal and are still under way. */
  #leaked = 0
  /** Why the run cannot go on. */
  #fatal: unknown
  #ended = false
  #changed = Promise.withResolvers<void>()

  constructor(parts: PageParts) {
    const { page, table, application, pageId, context, tries } = parts
    this.#parts = parts
    const read = (after: string | null, limit: number) =>
      this.#persist(() => table.pending(application, { after, upTo: page.toKey }, limit))
    this.#reader = new PageReader(read, page.fromKey, parts.settings.pageSize)
    this.#cautious = page.cautious
    this.#calls = page.calls
    this.#spent = page.spent
    this.#tries = tries
    this.#marker = new Marker(table, application, pageId, context.signal)
    this.#failures = new Gatherer(async (failed) => {
      await this.#persist(() => keepTries(context.engine, pageId, failed))
      return failed.map(() => undefined)
    })
  }

  /**
   * Works until the page is through, or has to stop.
   *
   * @throws the signal's reason, when it fires.
   */
  async run(): Promise<Outcome> {
    const { signal } = this.#parts.context
    const wake = () => this.#wake()
    signal.addEventListener('abort', wake)
    const others = this.#others()
    others.add(this)
    try {
      await this.#beat()
      return await this.#work()
    } finally {
      others.delete(this)
      signal.removeEventListener('abort', wake)
      await this.#endBeats()
      for (const other of others) other.slotsAreFree()
      if (others.size === 0) atWork.delete(this.#runKey)
    }
  }

  /** Another page of this process has ended. */
  slotsAreFree(): void {
    if (this.#permit.slots === 0) void this.#beat()
  }

  get #runKey(): string {
    return `${this.#parts.context.engine.schema} ${this.#parts.page.runId}`
  }

  #others(): Set<PageRun> {
    const others = atWork.get(this.#runKey) ?? new Set()
    if (others.size === 0) atWork.set(this.#runKey, others)
    return others
  }

  async #work(): Promise<Outcome> {
    while (true) {
      this.#start()
      this.#read()
      const outcome = this.#open.size === 0 && !this.#reader.reading ? await this.#leave() : undefined
      if (outcome) return outcome
      await this.#change()
    }
  }

  /** Whether there is nothing more to do here for now: how the job goes on. */
  async #leave(): Promise<Outcome | undefined> {
    const { signal } = this.#parts.context
    if (signal.aborted) throw signal.reason
    if (this.#fatal !== undefined) {
      await this.#parts.fail(this.#fatal)
      return this.#finish()
    }
    const { state } = this.#permit
    if (state === 'paused' || state === 'planned' || state === 'lost') return complete()
    if (state !== 'running') return this.#finish()
    if (this.#permit.stopping) return snooze(0)
    if (this.#permit.slowMs > STARVED_MS) return this.#sleep(this.#permit.slowMs)
    if (this.#reader.ended && this.#reader.size === 0) {
      const [next] = this.#waiting
      if (!next) return this.#finish()
      const waitMs = next.dueAt - performance.now()
      if (waitMs > SHORT_WAIT_MS) return this.#sleep(waitMs)
    }
    return this.#starved() ? this.#sleep(STARVED_MS) : undefined
  }

  async #sleep(waitMs: number): Promise<Outcome> {
    await this.#beat()
    return snooze(Math.ceil(waitMs))
  }

  #starved(): boolean {
    if (this.#permit.slots > 0) this.#starvedSince = undefined
    else this.#starvedSince ??= performance.now()
    return this.#starvedSince !== undefined && performance.now() - this.#starvedSince > STARVED_MS
  }

  async #finish(): Promise<Outcome> {
    const { context, page, pageId } = this.#parts
    // Breakers count the calls of short pages too.
    if (this.#permit.hasNews) await this.#beat()
    await this.#endBeats()
    const { claimNo } = context.claim
    const ended = { runId: page.runId, id: pageId, claimNo, calls: this.#calls, spent: this.#spent }
    const woken = await this.#persist(() => finishPage(context.engine, ended))
    if (woken !== null) context.announce(woken)
    return complete()
  }

  /** Reads on while fewer records are at hand than could be started. */
  #read(): void {
    const { slots, open } = this.#permit
    if (!open || slots === 0 || this.#parts.context.signal.aborted || !this.#reader.needs(slots)) return
    void this.#reader
      .readOn(slots, (record) => this.#isNew(record))
      .catch((error: unknown) => {
        this.#fatal ??= error
      })
      .then(() => {
        this.#endedWhileReading.clear()
        this.#wake()
      })
  }

  /** Whether a record that was read is to be called in its turn: not one that is under way, or waits for its next try. */
  #isNew(record: PendingRecord): boolean {
    const { key } = record
    if (this.#calling.has(key) || this.#retrying.has(key) || this.#endedWhileReading.has(key)) return false
    const dueMs = this.#tries.get(key)?.dueMs ?? 0
    if (dueMs > 0) this.#waitFor(record, dueMs)
    return dueMs === 0
  }

  #waitFor(record: PendingRecord, delayMs: number): void {
    this.#retrying.add(record.key)
    this.#waiting.push({ record, dueAt: performance.now() + delayMs })
    this.#waiting.sort((a, b) => a.dueAt - b.dueAt)
  }

  #start(): void {
    const { context, settings } = this.#parts
    while (!context.signal.aborted && this.#fatal === undefined) {
      const limit = this.#cautious > 0 ? Math.min(1, this.#permit.limit) : this.#permit.limit - this.#leaked
      if (this.#open.size >= limit || !this.#permit.take(settings.breaker.inRow)) return
      const record = this.#next()
      if (!record) return
      this.#calling.add(record.key)
      const open = this.#one(record)
        .catch((error: unknown) => {
          if (!context.signal.aborted) this.#fatal ??= error
        })
        .then(() => {
          this.#open.delete(open)
          this.#calling.delete(record.key)
          if (this.#reader.reading) this.#endedWhileReading.add(record.key)
          this.#wake()
        })
      this.#open.add(open)
    }
  }

  /** A record whose next try is due goes first. */
  #next(): PendingRecord | undefined {
    const [first] = this.#waiting
    if (first && first.dueAt <= performance.now()) {
      this.#waiting.shift()
      this.#retrying.delete(first.record.key)
      return first.record
    }
    return this.#reader.next()
  }

  async #one(record: PendingRecord): Promise<void> {
    if (this.#cautious === 0) return this.#callAndSettle(record, false)
    await this.#callAndSettle(record, true)
    this.#cautious--
    if (this.#cautious === 0) await this.#note(null)
  }

  async #callAndSettle(record: PendingRecord, alone: boolean): Promise<void> {
    const before = this.#tries.get(record.key)
    if ((before?.crashes ?? 0) >= MOST_CRASHES) {
      const reason = `its process died ${before?.crashes} times while it was called, alone`
      return this.#mark(record, 'error', null, reason)
    }
    if (alone && !((await this.#note(record.key)) && (await this.#pending(record.key)))) return
    await this.#settle(record, (before?.tries ?? 0) + 1, await this.#call(record, (before?.tries ?? 0) + 1))
  }

  /** The claim that died may be alive after all, and have marked the record since it was read. */
  async #pending(key: string): Promise<boolean> {
    const { table, application } = this.#parts
    return (await this.#persist(() => table.look(application, [key]))).get(key) === true
  }

  #note(key: string | null): Promise<boolean> {
    const { context, pageId } = this.#parts
    const page = { id: pageId, claimNo: context.claim.claimNo }
    return this.#persist(() => noteCalling(context.engine, page, key, this.#cautious))
  }

  #call(record: PendingRecord, attempt: number): Promise<CallOutcome> {
    const { settings, context, run } = this.#parts
    this.#calls++
    this.#permit.began()
    return callRecord(settings, record, {
      signal: context.signal,
      idempotencyKey: () => idempotencyKeyOf(context.engine.schema, run, record.key),
      attempt,
      spend: (amount) => {
        if (!Number.isFinite(amount)) return
        this.#spent += amount
        this.#permit.spend(amount)
      },
      leaked: (settled) => this.#outlive(record, settled),
    })
  }

  /** What a call that was given up answers after all was paid for: the first mark stands. */
  #outlive(record: PendingRecord, settled: Promise<CallOutcome>): void {
    this.#leaked++
    void settled.then(async (outcome) => {
      this.#leaked--
      if (outcome.kind === 'done') await this.#settle(record, 0, outcome).catch(() => {})
      this.#wake()
    })
  }

  #settle(record: PendingRecord, attempt: number, outcome: CallOutcome): Promise<void> {
    switch (outcome.kind) {
      case 'aborted':
        return Promise.resolve()
      case 'done':
        this.#permit.count(true)
        return this.#mark(record, 'done', this.#parts.table.resultText(outcome.json, outcome.value), null)
      case 'later':
        this.#permit.slowDown(outcome.delayMs)
        void this.#beat()
        return this.#tryLater(record, attempt - 1, outcome.delayMs, outcome.reason)
      case 'failed': {
        this.#permit.count(false)
        if (outcome.permanent || attempt > this.#parts.settings.retries) {
          return this.#mark(record, 'error', null, outcome.reason)
        }
        const delayMs = backoffDelay(attempt, this.#parts.settings.backoff)
        return this.#tryLater(record, attempt, delayMs, outcome.reason)
      }
    }
  }

  async #mark(
    { key }: PendingRecord,
    status: 'done' | 'error',
    result: string | null,
    reason: string | null,
  ): Promise<void> {
    await this.#marker.add({ key, status, result, error: reason === null ? null : storable(reason) })
  }

  /** Kept in the database, so that a crash does not begin the count anew. */
  async #tryLater(record: PendingRecord, tries: number, delayMs: number, reason: string): Promise<void> {
    const crashes = this.#tries.get(record.key)?.crashes ?? 0
    this.#tries.set(record.key, { tries, crashes, dueMs: 0 })
    await this.#failures.add({ key: record.key, tries, delayMs, error: storable(reason) })
    this.#waitFor(record, delayMs)
  }

  /** At most one at a time; a failed one is made up for by the next. */
  #beat(): Promise<void> {
    if (this.#ended) return Promise.resolve()
    clearTimeout(this.#beatTimer)
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = undefined
      if (!this.#ended) this.#beatTimer = setTimeout(() => void this.#beat(), BEAT_MS)
      this.#wake()
    })
    return this.#beating
  }

  async #endBeats(): Promise<void> {
    this.#ended = true
    clearTimeout(this.#beatTimer)
    await this.#beating
  }

  async #beatOnce(): Promise<void> {
    const { context, page, pageId, settings } = this.#parts
    const sentAt = performance.now()
    const news = this.#permit.news()
    const busy = this.#open.size + this.#leaked
    const report = {
      runId: page.runId,
      pageId,
      claimNo: context.claim.claimNo,
      wanted: this.#wanted(busy),
      busy,
      calls: this.#calls,
      spent: this.#spent,
      drained: this.#reader.ended && this.#reader.size === 0,
      ok: news.ok,
      failed: news.failed,
      trailing: news.trailing,
      slowMs: this.#permit.askedMs,
      breaker: settings.breaker,
    }
    this.#permit.ask(busy)
    try {
      this.#permit.learn(await beatPage(context.engine, report), sentAt, news)
    } catch (error) {
      if (!mayPass(error)) this.#fatal ??= error
    }
  }

  /** Slots that it has a use for: what is not read yet may be as much as the page has. */
  #wanted(busy: number): number {
    const { pageSize } = this.#parts.settings
    if (this.#permit.stopping) return busy
    if (!this.#reader.ended) return pageSize
    return Math.min(pageSize, busy + this.#reader.size + this.#waiting.length)
  }

  #persist<Value>(work: () => Promise<Value>): Promise<Value> {
    return untilDone(work, mayPass, this.#parts.context.signal, () => {})
  }

  /** Resolves when something has happened, or a wait is over. */
  async #change(): Promise<void> {
    if (this.#permit.mustAsk(this.#parts.settings.breaker.inRow)) void this.#beat()
    const now = performance.now()
    const due = this.#waiting[0]?.dueAt ?? Number.POSITIVE_INFINITY
    const waitMs = Math.max(1, Math.min(BEAT_MS, due - now, this.#permit.nextAt(now) - now))
    const timer = setTimeout(() => this.#wake(), waitMs)
    await this.#changed.promise
    clearTimeout(timer)
    this.#changed = Promise.withResolvers<void>()
  }

  #wake(): void {
    this.#changed.resolve()
  }
}
