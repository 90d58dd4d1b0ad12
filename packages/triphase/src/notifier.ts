import type { Database } from './store/database.ts'
import type { Telemetry } from './telemetry.ts'

/**
 * News from another process. A hint may be lost, doubled or late, and is never the truth: the truth is in the
 * tables, and every receiver looks there.
 */
export type Hint =
  /** A queue may have available jobs. */
  | { kind: 'available'; queue: string }
  /** A job was scheduled, due in so many milliseconds. */
  | { kind: 'scheduled'; inMs: number }
  /** Somebody wants a running job cancelled. */
  | { kind: 'cancel'; jobId: string }
  /** A queue was paused, resumed or given another concurrency. */
  | { kind: 'queue-changed'; queue: string }
  /** Hints may have been missed (the connection was lost): look everywhere. */
  | { kind: 'resync' }

/** What a notifier gets from the engine. */
export interface NotifierContext {
  /** The engine's pool; a notifier publishes through it. */
  database: Database
  /** A URL whose connections are not pooled per transaction; the engine's own when none was configured. */
  directUrl: string
  /**
   * The heartbeat's connection, where `directUrl` is the engine's own URL: a notifier may listen there (`listen`)
   * instead of opening one. Heartbeats wait for its statements, so they must be few and over at once. The engine
   * ends it. Null where `directUrl` leads elsewhere.
   */
  session: Database | null
  applicationName: string
  /** How often the engine's heartbeat asks for work of all queues, in milliseconds. */
  heartbeatMs: number
  /** The queues that this process works on. */
  queues: readonly string[]
  telemetry: Telemetry
  receive(hint: Hint): void
}

/** Carries hints between processes. Each method may be called once or more; `stop` before `start` is harmless. */
export interface Notifier {
  readonly name: string
  /** Resolves when hints arrive, or at once when the notifier goes on trying in the background. Never rejects for a database that is away. */
  start(context: NotifierContext): Promise<void>
  /** Sends hints to all processes of the schema. Rejects when it cannot; the engine reports that and goes on. */
  publish(database: Database, hints: readonly Hint[]): Promise<void>
  /** This process found work, or found none: a notifier that polls adapts its pace. */
  observe?(foundWork: boolean): void
  stop(): Promise<void>
}

/** Reads a hint from its JSON form; null for anything else (a newer version's hint, somebody else's payload). */
export function parseHint(payload: string): Hint | null {
  try {
    const value: unknown = JSON.parse(payload)
    if (typeof value !== 'object' || value === null || !('kind' in value)) return null
    return isHint(value as { kind: unknown }) ? (value as unknown as Hint) : null
  } catch {
    return null
  }
}

function isHint(value: { kind: unknown; queue?: unknown; jobId?: unknown; inMs?: unknown }): boolean {
  switch (value.kind) {
    case 'available':
    case 'queue-changed':
      return typeof value.queue === 'string'
    case 'scheduled':
      return typeof value.inMs === 'number'
    case 'cancel':
      return typeof value.jobId === 'string'
    default:
      return value.kind === 'resync'
  }
}
