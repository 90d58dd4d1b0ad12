import { setTimeout as delay } from 'node:timers/promises'
import type { EngineConfig } from './config.ts'
import { LONGEST_TIMER_MS } from './duration.ts'
import { storedError, TriphaseError } from './errors.ts'
import type { ClaimedJob } from './job.ts'
import { Heart } from './maintenance/heart.ts'
import { Janitor } from './maintenance/janitor.ts'
import { processIdentity } from './maintenance/machine.ts'
import { rescue } from './maintenance/rescuer.ts'
import { Stager } from './maintenance/stager.ts'
import type { Hint, Notifier } from './notifier.ts'
import { Acker } from './queue/acker.ts'
import { RunningClaim, RunningClaims } from './queue/claims.ts'
import { Executor } from './queue/executor.ts'
import type { HintOutbox } from './queue/hints.ts'
import type { Holds } from './queue/holds.ts'
import { Marks } from './queue/marks.ts'
import { Producer } from './queue/producer.ts'
import { untilDone } from './retry.ts'
import { claimJobs } from './store/claim.ts'
import { type Database, isConnectionFailure } from './store/database.ts'
import { type Beat, deregisterProcess } from './store/heartbeat.ts'
import type { Transactor } from './store/transactor.ts'
import type { Task } from './task.ts'
import type { Telemetry } from './telemetry.ts'

export interface WorkerParts {
  config: EngineConfig
  database: Database
  heartbeatDatabase: Database
  /** The notifier's, if it may use the heartbeat's connection. */
  session: Database | null
  application: Transactor<unknown>
  tasks: ReadonlyMap<string, Task<unknown, never>>
  notifier: Notifier
  outbox: HintOutbox
  holds: Holds
  telemetry: Telemetry
}

/** Outcomes that may wait to be written before a queue claims more. */
const MOST_PENDING_ACKS = 1_000
const LAST_WRITES_MS = 10_000

/** The part of an engine that runs jobs: one process, from its registration to its last ack. */
export class Worker {
  readonly #parts: WorkerParts
  readonly #claims = new RunningClaims()
  readonly #closing = new AbortController()
  readonly #acker: Acker
  readonly #executor: Executor
  readonly #heart: Heart
  readonly #stager: Stager
  readonly #janitor: Janitor
  readonly #producers = new Map<string, Producer>()
  /** Of each queue. */
  readonly #marks: Marks[] = []
  #state: 'starting' | 'working' | 'stopping' = 'starting'
  /** One suspect at a time in this process: reserved by the claim that may bring one, until that one is through. */
  #suspectReserved = false

  constructor(parts: WorkerParts) {
    this.#parts = parts
    const { config, database, telemetry } = parts
    this.#acker = new Acker(database, telemetry, config.retentionMs > 0)
    this.#executor = this.#makeExecutor()
    this.#heart = this.#makeHeart()
    this.#stager = new Stager(database, telemetry, (queues) => this.#workIn(queues, true))
    this.#janitor = new Janitor(database, telemetry, config.retentionMs, (queues) =>
      this.#workIn(queues, true),
    )
    for (const [queue, { concurrency }] of config.queues) {
      this.#producers.set(queue, this.#makeProducer(queue, concurrency))
    }
  }

  get processId(): string {
    return this.#heart.processId
  }

  get running(): number {
    return this.#claims.size
  }

  get janitor(): Janitor {
    return this.#janitor
  }

  async start(): Promise<void> {
    const { config, database, session, notifier, telemetry } = this.#parts
    await this.#heart.start()
    telemetry.emit('process:started', { processId: this.processId, name: config.name })
    this.#stager.start()
    try {
      await notifier.start({
        database,
        directUrl: config.directUrl,
        session,
        applicationName: config.name,
        heartbeatMs: config.heartbeatMs,
        queues: [...this.#producers.keys()],
        telemetry,
        receive: (hint) => this.receive(hint),
      })
    } catch (error) {
      await this.stop(0)
      throw error
    }
    // Hints of what came since the first claims, and before the notifier heard any, are lost.
    for (const producer of this.#producers.values()) producer.wake()
  }

  /** Acts on a hint: from another process, or from this one's own enqueuer. */
  receive(hint: Hint): void {
    switch (hint.kind) {
      case 'available':
        this.#producers.get(hint.queue)?.wake()
        break
      case 'scheduled':
        this.#stager.dueIn(hint.inMs)
        break
      case 'cancel':
        // A late hint may be about an earlier claim of the job: the beat says whether there is a request.
        if (this.#claims.get(hint.jobId)) this.#heart.beatNow()
        break
      case 'queue-changed':
        this.#heart.beatNow()
        break
      case 'resync':
        this.#heart.beatNow()
        for (const marks of this.#marks) marks.forget()
        for (const producer of this.#producers.values()) producer.resync()
        break
    }
  }

  /**
   * Stops in order: claims nothing more, gives running jobs the grace period, fires their signals, hands back what
   * is left, writes the last outcomes, and removes the process.
   */
  async stop(graceMs: number): Promise<void> {
    const { config, notifier, telemetry } = this.#parts
    this.#state = 'stopping'
    telemetry.emit('process:stopping', { processId: this.processId, running: this.#claims.size, graceMs })
    this.#heart.announceStop()
    await Promise.all([...this.#producers.values()].map((producer) => producer.stop()))
    await notifier.stop().catch((error: unknown) => this.#report('stop notifier', error, null))
    await within(graceMs, this.#claims.empty())
    const stopping = new TriphaseError('STOPPING', 'The engine is stopping, and the grace period is over.')
    for (const claim of this.#claims.all()) claim.abort(stopping)
    await within(config.abortGraceMs + LAST_WRITES_MS, this.#claims.empty())
    this.#acker.giveUp()
    // The heart first: what its last beat says may start the others.
    await this.#heart.stop()
    await Promise.all([this.#stager.stop(), this.#janitor.stop()])
    const handedBack = await this.#deregister()
    this.#closing.abort()
    telemetry.emit('process:stopped', { processId: this.processId, handedBack })
  }

  async #deregister(): Promise<number> {
    try {
      const signal = AbortSignal.timeout(LAST_WRITES_MS)
      const { heartbeatDatabase } = this.#parts
      const queues = await untilDone(
        () => deregisterProcess(heartbeatDatabase, this.processId),
        isConnectionFailure,
        signal,
        (error, pauseMs) => this.#report('deregister', error, pauseMs),
      )
      this.#workIn([...new Set(queues)], true)
      await this.#parts.outbox.flushed()
      return queues.length
    } catch (error) {
      // The others will find this process silent, and rescue what it held.
      this.#report('deregister', error, null)
      return 0
    }
  }

  #makeExecutor(): Executor {
    const { config, database, application, tasks, holds, telemetry } = this.#parts
    return new Executor({
      tasks,
      holds,
      claims: this.#claims,
      acker: this.#acker,
      telemetry,
      context: {
        database,
        application,
        telemetry,
        holds,
        maxAnswerBytes: config.maxAnswerBytes,
        keepCompleted: config.retentionMs > 0,
        closing: this.#closing.signal,
        onAvailable: (queue) => this.#workIn([queue], true),
      },
      queueTimeoutMs: (queue) => config.queues.get(queue)?.timeoutMs ?? 60_000,
      abortGraceMs: config.abortGraceMs,
      onAvailable: (queue) => this.#workIn([queue], true),
      onScheduled: (delayMs) => this.#stager.dueIn(delayMs),
    })
  }

  #makeHeart(): Heart {
    const { config, heartbeatDatabase, database, telemetry } = this.#parts
    return new Heart({
      database: heartbeatDatabase,
      identity: processIdentity(config.name, [...config.queues.keys()], config.deadAfterMs),
      telemetry,
      heartbeatMs: config.heartbeatMs,
      deadAfterMs: config.deadAfterMs,
      running: () => this.#claims.held(),
      onBeat: (beat) => this.#learn(beat),
      onLost: () => this.#startAnew(),
      onDead: async (peer) => this.#workIn(await rescue(database, telemetry, peer), true),
    })
  }

  #makeProducer(queue: string, concurrency: number): Producer {
    const marks = new Marks()
    this.#marks.push(marks)
    return new Producer({
      queue,
      concurrency,
      claim: (limit) => this.#claim(queue, marks, limit),
      run: (claim) => this.#run(claim),
      handBack: (claims) => this.#handBack(claims),
      ready: () => this.#acker.below(MOST_PENDING_ACKS),
      onClaimFailed: (error, retryInMs) => {
        this.#heart.expectStrays()
        this.#report('claim', error, retryInMs)
      },
    })
  }

  async #claim(queue: string, marks: Marks, limit: number): Promise<RunningClaim[]> {
    const { database, notifier, telemetry } = this.#parts
    const began = performance.now()
    const reserves = !this.#suspectReserved
    if (reserves) this.#suspectReserved = true
    let broughtSuspect = false
    try {
      const { processId } = this
      const suspects = reserves ? 1 : 0
      const claim = { queue, processId, limit, suspects, marks: marks.next() } as const
      const { jobs, receipt } = await claimJobs(database, claim)
      if (receipt) marks.learn(receipt)
      broughtSuspect = jobs.some(isSuspect)
      notifier.observe?.(jobs.length > 0)
      if (jobs.length > 0) {
        telemetry.emit('queue:claimed', { queue, count: jobs.length, durationMs: performance.now() - began })
      }
      return jobs.map((job) => this.#claims.add(new RunningClaim(job)))
    } finally {
      if (reserves && !broughtSuspect) this.#suspectReserved = false
    }
  }

  #run(claim: RunningClaim): Promise<void> {
    const done = this.#executor.run(claim)
    return isSuspect(claim.job) ? done.finally(() => void this.#suspectIsThrough(claim)) : done
  }

  #handBack(claims: readonly RunningClaim[]): void {
    for (const claim of claims) {
      void this.#executor.handBack(claim)
      if (isSuspect(claim.job)) void this.#suspectIsThrough(claim)
    }
  }

  /** Until its outcome is written, a crash of the next suspect would count for this one too. */
  async #suspectIsThrough(claim: RunningClaim): Promise<void> {
    await this.#claims.end(claim)
    this.#suspectReserved = false
    for (const producer of this.#producers.values()) producer.wake()
  }

  #learn(beat: Beat): void {
    const { telemetry, config } = this.#parts
    for (const { jobId, claimNo } of beat.cancelled) this.#cancel(this.#claims.get(jobId), claimNo)
    for (const { jobId, claimNo } of beat.lost) this.#lose(this.#claims.get(jobId), claimNo)
    const settings = new Map(beat.queues.map((queue) => [queue.name, queue]))
    for (const [queue, producer] of this.#producers) {
      const changed = producer.apply(settings.get(queue) ?? { paused: false, concurrency: null })
      if (changed) telemetry.emit('queue:changed', { queue, ...producer.settings })
    }
    this.#claimJobs()
    if (beat.strays.length > 0) telemetry.emit('jobs:strays-returned', { jobIds: beat.strays })
    this.#workIn(beat.available, false)
    if (beat.nextDueMs !== null && beat.nextDueMs < config.heartbeatMs * 2) this.#stager.dueIn(beat.nextDueMs)
    if (beat.leads !== this.#janitor.leading) {
      this.#janitor.lead(beat.leads)
      telemetry.emit('process:leading', { processId: this.processId, leading: beat.leads })
    }
  }

  /** Not before the first beat, which tells what is paused. */
  #claimJobs(): void {
    if (this.#state !== 'starting') return
    this.#state = 'working'
    for (const producer of this.#producers.values()) producer.start()
  }

  /** There is work in these queues; `news`: that others do not know of. */
  #workIn(queues: readonly string[], news: boolean): void {
    for (const queue of queues) this.#producers.get(queue)?.wake()
    if (news) this.#parts.outbox.add(queues.map((queue) => ({ kind: 'available', queue })))
  }

  #cancel(claim: RunningClaim | undefined, claimNo: number): void {
    if (claim?.job.claimNo === claimNo) claim.abort(new TriphaseError('CANCELLED', 'cancelled on request'))
  }

  /** The claim is somebody else's now. While its own outcome is being written, the ack finds that out by itself. */
  #lose(claim: RunningClaim | undefined, claimNo: number): void {
    if (!claim || claim.job.claimNo !== claimNo || claim.settled) return
    claim.lost = true
    claim.abort(
      new TriphaseError(
        'CLAIM_LOST',
        'Another process took this job over; what it does here is not acknowledged.',
      ),
    )
  }

  #startAnew(): void {
    const { telemetry } = this.#parts
    const claims = this.#claims.all()
    telemetry.emit('process:lost', { processId: this.processId, aborted: claims.length })
    for (const claim of claims) this.#lose(claim, claim.job.claimNo)
    for (const marks of this.#marks) marks.forget()
    for (const producer of this.#producers.values()) producer.wake()
  }

  #report(statement: string, error: unknown, retryInMs: number | null): void {
    this.#parts.telemetry.emit('statement:failed', { statement, error: storedError(error), retryInMs })
  }
}

function isSuspect(job: ClaimedJob): boolean {
  return job.crashCount >= 2
}

async function within(ms: number, done: Promise<void>): Promise<void> {
  const timer = new AbortController()
  const limitMs = Math.min(ms, LONGEST_TIMER_MS)
  await Promise.race([done, delay(limitMs, undefined, { signal: timer.signal }).catch(() => {})])
  timer.abort()
}
