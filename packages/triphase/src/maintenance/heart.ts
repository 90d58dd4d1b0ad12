import { storedError } from '../errors.ts'
import { Loop } from '../loop.ts'
import type { Database } from '../store/database.ts'
import { type Beat, beatOnce, type Peer, type ProcessIdentity, registerProcess } from '../store/heartbeat.ts'
import type { Telemetry } from '../telemetry.ts'
import { isCertainlyGone } from './machine.ts'
import { PeerWatch } from './peers.ts'

export interface HeartParts {
  /** A connection of its own: a busy pool must never look like a dead process. */
  database: Database
  identity: ProcessIdentity
  telemetry: Telemetry
  heartbeatMs: number
  deadAfterMs: number
  running: () => readonly { jobId: string; claimNo: number }[]
  /** Told of every beat that succeeded. */
  onBeat: (beat: Beat) => void
  /** Others took this process for dead; it is another process from now on. */
  onLost: () => void
  /** A peer is dead. */
  onDead: (peer: Peer) => Promise<void>
}

/** A claim's reply takes no longer than this: the statement is given up long before. In milliseconds. */
const STRAY_AFTER_MS = 20_000
/** The request of a claim that was given up may still reach the server: the kernel goes on sending for minutes. */
const LOOK_FOR_STRAYS_MS = 5 * 60_000

/** Says in one statement every few seconds that the process lives, and learns everything that it must know. */
export class Heart {
  readonly #parts: HeartParts
  readonly #loop: Loop
  readonly #watch: PeerWatch
  #processId: string | undefined
  #starting: Promise<void> | undefined
  #stopping = false
  #strayUntil = 0
  #failures = 0

  constructor(parts: HeartParts) {
    this.#parts = parts
    this.#watch = new PeerWatch(parts.heartbeatMs, parts.deadAfterMs)
    this.#loop = new Loop(() => this.#pass())
  }

  /** The process's id; throws before `start`. */
  get processId(): string {
    if (this.#processId === undefined) throw new Error('the process is not registered yet')
    return this.#processId
  }

  start(): Promise<void> {
    this.#starting ??= this.#register().catch((error: unknown) => {
      this.#starting = undefined
      throw error
    })
    return this.#starting
  }

  /** From now on the beat says that the process is stopping. */
  announceStop(): void {
    this.#stopping = true
    this.#loop.wake()
  }

  /** A claim's reply did not arrive, so that jobs may have been claimed that nobody knows of here. */
  expectStrays(): void {
    this.#strayUntil = performance.now() + LOOK_FOR_STRAYS_MS
  }

  beatNow(): void {
    this.#loop.wake()
  }

  async stop(): Promise<void> {
    await this.#starting?.catch(() => {})
    this.#starting = undefined
    await this.#loop.stop()
  }

  async #register(): Promise<void> {
    this.#processId = await registerProcess(this.#parts.database, this.#parts.identity)
    this.#loop.start()
  }

  async #pass(): Promise<number> {
    const { heartbeatMs } = this.#parts
    const began = performance.now()
    try {
      await this.#beat()
      this.#failures = 0
    } catch (error) {
      this.#watch.restart()
      this.#failures++
      this.#parts.telemetry.emit('heartbeat:failed', { error: storedError(error), failures: this.#failures })
    }
    return Math.max(heartbeatMs / 4, heartbeatMs - (performance.now() - began))
  }

  async #beat(): Promise<void> {
    const { database, running, identity, heartbeatMs } = this.#parts
    const beat = await beatOnce(database, {
      processId: this.processId,
      running: running(),
      queues: identity.queues,
      stopping: this.#stopping,
      leaseMs: heartbeatMs * 4,
      strayAfterMs: STRAY_AFTER_MS,
      lookForStrays: performance.now() < this.#strayUntil,
    })
    if (!beat.alive) return this.#lost()
    this.#parts.onBeat(beat)
    const silent = this.#watch.observe(beat.peers, performance.now())
    const gone = beat.peers.filter((peer) => isCertainlyGone(peer) && !silent.includes(peer))
    for (const peer of [...silent, ...gone]) await this.#parts.onDead(peer)
  }

  async #lost(): Promise<void> {
    this.#watch.restart()
    const { database, identity, onLost } = this.#parts
    this.#processId = await registerProcess(database, identity)
    onLost()
    this.#loop.wake()
  }
}
