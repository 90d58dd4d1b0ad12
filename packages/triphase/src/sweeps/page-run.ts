import { backoffDelay } from '../backoff.ts'
import {
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
import { PageRecords } from './page-records.ts'
import { Permit } from './permit.ts'
import { type CallOutcome, idempotencyKeyOf, RecordCalls } from './record-call.ts'
import type { PendingRecord, RecordTable, RunOnApplication } from './record-table.ts'
import { BEAT_MS, RunAtWork } from './run-at-work.ts'
import type { SweepSettings } from './sweep.ts'

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

/** A shorter wait than this for a record's next try is waited for; for a longer one the job sleeps. */
const SHORT_WAIT_MS = 500
/** A page without slots gives its place in the queue to others for a while. */
const STARVED_MS = 3_000
/** A record that was noted at so many crashes is taken to be their cause. */
const MOST_CRASHES = 3
/** As many slots as there are. */
const MANY = 10_000

/**
 * One claim of a page's job: reads the pending records of a range of keys in small portions, and calls as many at a
 * time as the run lets it. A record's slot is free when its mark has committed.
 */
export class PageRun {
  readonly #parts: PageParts
  readonly #permit = new Permit()
  readonly #records: PageRecords
  readonly #caller: RecordCalls
  readonly #marker: Marker
  readonly #failures: Gatherer<FailedTry, undefined>
  #run: RunAtWork | undefined
  #open = 0
  #beating: Promise<void> | undefined
  #starvedSince: number | undefined
  #cautious: number
  #calls: number
  #spent: number
  /** Calls that ignored their signal and are still under way. */
  #leaked = 0
  #gaveWay = false
  /** Why the run cannot go on. */
  #fatal: unknown
  #ended = false
  #changed = Promise.withResolvers<void>()

  constructor(parts: PageParts) {
    const { page, table, application, pageId, context, tries } = parts
    this.#parts = parts
    const read = (after: string | null, limit: number) =>
      this.#persist(() => table.pending(application, { after, upTo: page.toKey }, limit))
    this.#records = new PageRecords(read, page.fromKey, tries)
    this.#cautious = page.cautious
    this.#calls = page.calls
    this.#spent = page.spent
    this.#caller = new RecordCalls(parts.settings, context.signal, {
      idempotencyKey: ({ key }) => idempotencyKeyOf(context.engine.schema, parts.run, key),
      spend: (_record, amount) => this.#spend(amount),
      leaked: (record, settled) => this.#outlive(record, settled),
    })
    this.#marker = new Marker(table, application, pageId, context.signal, (work) => this.#persist(work))
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
    const { context, page } = this.#parts
    const wake = () => this.#wake()
    context.signal.addEventListener('abort', wake)
    this.#run = RunAtWork.enter(context.engine, page.runId, this)
    try {
      await this.beat()
      return await this.#work()
    } finally {
      context.signal.removeEventListener('abort', wake)
      this.#caller.end()
      await this.#endBeats()
      this.#run.leave(this)
    }
  }

  /** It begins no more calls than there are under way, or only one at a time. */
  get givesWay(): boolean {
    return this.#records.drained || this.#cautious > 0 || this.#fatal !== undefined
  }

  async #work(): Promise<Outcome> {
    while (true) {
      this.#start()
      this.#read()
      this.#giveWay()
      const outcome = this.#open === 0 && !this.#records.reading ? await this.#leave() : undefined
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
    if (state === 'lost') return complete()
    if (state === 'paused' || state === 'planned') {
      await this.#tellAll()
      return complete()
    }
    if (state !== 'running') return this.#finish()
    if (this.#permit.stopping) return this.#sleep(0)
    if (this.#permit.slowMs > STARVED_MS) return this.#sleep(this.#permit.slowMs)
    if (this.#records.drained) {
      const { dueAt } = this.#records
      if (dueAt === undefined) return this.#finish()
      const waitMs = dueAt - performance.now()
      if (waitMs > SHORT_WAIT_MS) return this.#sleep(waitMs)
    }
    return this.#starved() ? this.#sleep(STARVED_MS) : undefined
  }

  async #sleep(waitMs: number): Promise<Outcome> {
    await this.#tellAll()
    return snooze(Math.ceil(waitMs))
  }

  /** The next page to have its turn stays, so that no slot waits for it. */
  #starved(): boolean {
    if (this.#permit.slots > 0 || this.#turnIn === 1) this.#starvedSince = undefined
    else this.#starvedSince ??= performance.now()
    return this.#starvedSince !== undefined && performance.now() - this.#starvedSince > STARVED_MS
  }

  async #finish(): Promise<Outcome> {
    const { context, page, pageId } = this.#parts
    await this.#beating
    // Breakers count the calls of short pages too.
    if (this.#permit.hasNews) await this.beat()
    await this.#endBeats()
    const { claimNo } = context.claim
    const ended = { runId: page.runId, id: pageId, claimNo, calls: this.#calls, spent: this.#spent }
    const woken = await this.#persist(() => finishPage(context.engine, ended))
    if (woken !== null) context.announce(woken)
    return complete()
  }

  get #turnIn(): number {
    return this.#run?.turnIn(this) ?? 0
  }

  /** What a page at its end does not need any more is the next one's at once. */
  #giveWay(): void {
    if (this.givesWay === this.#gaveWay) return
    this.#gaveWay = this.givesWay
    if (this.#run?.hasOthers) this.#run.beatAll()
  }

  /** Reads on while fewer records are at hand than could be started; the next page's first ones before its turn. */
  #read(): void {
    const { slots, open } = this.#permit
    if (!open || this.#parts.context.signal.aborted) return
    if (slots === 0 && this.#turnIn !== 1) return
    const wanted = Math.max(1, slots)
    if (!this.#records.needsReading(wanted)) return
    void this.#records
      .readOn(wanted)
      .catch((error: unknown) => {
        this.#fatal ??= error
      })
      .then(() => this.#wake())
  }

  #start(): void {
    const { context, settings } = this.#parts
    while (!context.signal.aborted && this.#fatal === undefined) {
      const limit = this.#cautious > 0 ? Math.min(1, this.#permit.limit) : this.#permit.limit - this.#leaked
      if (this.#open >= limit || !this.#permit.take(settings.breaker.inRow)) return
      const record = this.#records.next()
      if (!record) return
      this.#open++
      const through = () => this.#through(record)
      const done = this.#cautious === 0 ? this.#one(record) : this.#alone(record)
      void done.then(through, (error: unknown) => {
        if (!context.signal.aborted) this.#fatal ??= error
        through()
      })
    }
  }

  #through(record: PendingRecord): void {
    this.#open--
    this.#records.ended(record)
    if (this.#gaveWay && this.#run?.hasOthers) this.#run.beatAll()
    this.#wake()
  }

  /** Written down before it is called: if the process dies now, this record was the cause. */
  async #alone(record: PendingRecord): Promise<void> {
    const isCause = this.#records.triesOf(record).crashes >= MOST_CRASHES
    // The claim that died may be alive after all, and have marked the record since it was read.
    if (isCause || (await this.#note(record.key))) await (isCause ? this.#one(record) : this.#again(record))
    this.#cautious--
    if (this.#cautious === 0) await this.#note(null)
  }

  #one(record: PendingRecord): Promise<unknown> {
    const { crashes } = this.#records.triesOf(record)
    if (crashes >= MOST_CRASHES) {
      return this.#mark(record, null, `its process died ${crashes} times while it was called, alone`)
    }
    if (this.#records.wasTried(record)) return this.#again(record)
    this.#begin()
    return this.#callAndSettle(record)
  }

  /** While it waited for its next try it may have been changed, deleted, or marked: by others, or by a call given up. */
  async #again({ key }: PendingRecord): Promise<void> {
    const { table, application } = this.#parts
    // Counted before it is looked at: others that look meanwhile must not use the same rest of a budget.
    this.#begin()
    const record = await this.#persist(() => table.pendingRecord(application, key))
    if (record) return this.#callAndSettle(record)
    this.#calls--
    this.#permit.neverBegan()
  }

  async #callAndSettle(record: PendingRecord): Promise<void> {
    const attempt = this.#records.triesOf(record).tries + 1
    await this.#settle(record, attempt, await this.#caller.make(record, attempt))
  }

  #note(key: string | null): Promise<boolean> {
    const { context, pageId } = this.#parts
    const page = { id: pageId, claimNo: context.claim.claimNo }
    return this.#persist(() => noteCalling(context.engine, page, key, this.#cautious))
  }

  #begin(): void {
    this.#calls++
    this.#permit.began()
  }

  #spend(amount: number): void {
    if (!Number.isFinite(amount)) return
    this.#spent += amount
    this.#permit.spend(amount)
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

  #settle(record: PendingRecord, attempt: number, outcome: CallOutcome): Promise<unknown> {
    switch (outcome.kind) {
      case 'aborted':
        return Promise.resolve()
      case 'done':
        this.#permit.count(true)
        return this.#mark(record, this.#parts.table.resultText(outcome.json, outcome.value), null)
      case 'later':
        this.#permit.slowDown(outcome.delayMs)
        void this.beat()
        return this.#tryLater(record, attempt - 1, outcome.delayMs, outcome.reason)
      case 'failed': {
        this.#permit.count(false)
        if (outcome.permanent || attempt > this.#parts.settings.retries) {
          return this.#mark(record, null, outcome.reason)
        }
        const delayMs = backoffDelay(attempt, this.#parts.settings.backoff)
        return this.#tryLater(record, attempt, delayMs, outcome.reason)
      }
    }
  }

  #mark({ key }: PendingRecord, result: string | null, reason: string | null): Promise<unknown> {
    return this.#marker.add({ key, result, error: reason === null ? null : storable(reason) })
  }

  /** Kept in the database, so that a crash does not begin the count anew. */
  async #tryLater(record: PendingRecord, tries: number, delayMs: number, reason: string): Promise<void> {
    await this.#failures.add({ key: record.key, tries, delayMs, error: storable(reason) })
    this.#records.tryLater(record, tries, delayMs)
  }

  /** Says what it does and learns what it may do: at most once at a time; a failed one is made up for by the next. */
  beat(): Promise<void> {
    if (this.#ended) return Promise.resolve()
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = undefined
      this.#wake()
    })
    return this.#beating
  }

  /** A beat that is under way does not know of the calls that have ended since. */
  async #tellAll(): Promise<void> {
    await this.#beating
    await this.beat()
  }

  async #endBeats(): Promise<void> {
    this.#ended = true
    await this.#beating
  }

  async #beatOnce(): Promise<void> {
    const { context, pageId, settings } = this.#parts
    const sentAt = performance.now()
    const news = this.#permit.news()
    const busy = this.#open + this.#leaked
    const report = {
      pageId,
      claimNo: context.claim.claimNo,
      wanted: this.#wanted(busy),
      busy,
      calls: this.#calls,
      spent: this.#spent,
      drained: this.#records.drained,
      ok: news.ok,
      failed: news.failed,
      trailing: news.trailing,
      slowMs: this.#permit.askedMs,
      breaker: settings.breaker,
    }
    this.#permit.ask(busy)
    try {
      const answer = await (this.#run as RunAtWork).tell(report)
      this.#permit.learn(answer, sentAt, news)
    } catch (error) {
      if (!mayPass(error)) this.#fatal ??= error
    }
  }

  /** Slots that it has a use for: what is not read yet may be as much as there are. */
  #wanted(busy: number): number {
    if (this.#permit.stopping || this.#turnIn > 0) return busy
    return Math.min(MANY, busy + this.#records.waiting)
  }

  #persist<Value>(work: () => Promise<Value>): Promise<Value> {
    const { context, settings } = this.#parts
    return context.persist(`page of sweep ${settings.name}`, work, mayPass)
  }

  /** Resolves when something has happened, or a wait is over. */
  async #change(): Promise<void> {
    if (this.#permit.mustAsk(this.#parts.settings.breaker.inRow)) void this.beat()
    const now = performance.now()
    const due = this.#records.dueAt ?? Number.POSITIVE_INFINITY
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
