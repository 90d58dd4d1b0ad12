import { type Duration, LONGEST_DELAY_MS, LONGEST_TIMER_MS, milliseconds } from './duration.ts'
import { TriphaseError } from './errors.ts'
import { isQueueName, QUEUE_NAME_RULE } from './task.ts'

/** One of the two pools. */
export interface PoolConfig {
  /** Connection URL, `postgres://user:password@host:port/database`. */
  url?: string
  /** Most connections open at a time. Default: 6 for the engine (one of them is the heartbeat's), 10 for the application. */
  size?: number
  /** Longest wait for a connection. Default: 15 s for the engine, 30 s for the application. */
  acquireTimeout?: Duration
}

/** A queue as this process works on it. */
export interface QueueConfig {
  /** Jobs of this queue that run at a time in this process. */
  concurrency: number
  /** Time for one attempt of a task that sets none. Default 60 s. */
  timeout?: Duration
}

/** What becomes of a transaction in which a call was made: rolled back with an error, reported, or not looked at. */
export type GuardMode = 'error' | 'warn' | 'off'

/** Hosts that may be called inside a transaction (`api.example.com`, `localhost:8080`, `.example.com`); true: anything. */
export type Allowed = true | readonly string[]

/** How transactions are guarded against calls that keep them open. */
export interface GuardOptions {
  /** Default `'error'`, and `'warn'` where `NODE_ENV` is `production`. */
  mode?: GuardMode
  /** Longest time that a transaction may be open; false: any. Default 1 s. */
  maxHold?: Duration | false
  /** What may be called inside every transaction. Default: nothing. */
  allow?: Allowed
}

/** What can be set for an engine, apart from its tasks and parts. */
export interface EngineOptions {
  /** Names this application in `pg_stat_activity` and in the list of processes. Default `'triphase'`. */
  name?: string
  /** URL of the database; each pool may have its own. */
  url?: string
  /** Pool of the engine: claims, acks, heartbeats. */
  engine?: PoolConfig
  /** Pool of the application: prepare and commit of staged tasks. Not used when a `Transactor` is given. */
  application?: PoolConfig
  /**
   * A URL whose connections are not pooled per transaction, for one more connection that only listens. Default: the
   * engine's URL, and no connection more: notifications come on that of the heartbeats.
   */
  directUrl?: string
  /** Schema of the engine's tables. Default `'triphase'`. */
  schema?: string
  /** The queues that this process works on, each with its concurrency or settings. None: the engine only enqueues. */
  queues?: Record<string, number | QueueConfig>
  /**
   * How long history is kept, in whole days (a day is dropped when all of it is older). Default 7 days. With 0, completed
   * jobs leave nothing behind: no result, no ledger. Cancelled and discarded ones stay until their day is over, so that
   * somebody can look at them and retry them. All processes of a database that work should agree on it: one of them drops what is old.
   */
  retention?: Duration
  /** How often a process says that it lives. Default 4 s. */
  heartbeat?: Duration
  /**
   * How long this process must be seen silent before its jobs are rescued, and the least for others; at least three
   * heartbeats. Default 12 s.
   */
  deadAfter?: Duration
  /** How long `stop` lets running jobs finish before their signals fire. Default 25 s. */
  grace?: Duration
  /** How long a handler may take after its signal fired before it is reported as leaked. Default 5 s. */
  abortGrace?: Duration
  /** Largest answer of a staged task, and largest result of a job, in bytes of JSON. Default 16 MiB. */
  maxAnswerBytes?: number
  /** What the guard says to calls inside `prepare`, `commit`, `abandon` and `engine.transaction`. */
  guard?: GuardOptions
}

export interface ResolvedPool {
  url: string
  size: number
  acquireTimeoutMs: number
}

export interface GuardSettings {
  readonly mode: GuardMode
  /** Null: any length of time. */
  readonly maxHoldMs: number | null
  readonly allow: Allowed
}

/** Options with every default filled in; lengths of time are milliseconds. */
export interface EngineConfig {
  readonly name: string
  readonly schema: string
  readonly engine: ResolvedPool
  readonly application: ResolvedPool
  readonly directUrl: string
  readonly queues: ReadonlyMap<string, { concurrency: number; timeoutMs: number }>
  readonly retentionMs: number
  readonly heartbeatMs: number
  readonly deadAfterMs: number
  readonly graceMs: number
  readonly abortGraceMs: number
  readonly maxAnswerBytes: number
  readonly guard: GuardSettings
}

const OPTION_NAMES = new Set<string>([
  'name',
  'url',
  'engine',
  'application',
  'directUrl',
  'schema',
  'queues',
  'retention',
  'heartbeat',
  'deadAfter',
  'grace',
  'abortGrace',
  'maxAnswerBytes',
  'guard',
])
const POOL_NAMES = new Set(['url', 'size', 'acquireTimeout'])
const GUARD_NAMES = new Set(['mode', 'maxHold', 'allow'])
const GUARD_MODES: readonly unknown[] = ['error', 'warn', 'off']
const QUEUE_NAMES = new Set(['concurrency', 'timeout'])
const URL_RULE =
  'a postgres:// URL of one host, with special characters of user and password percent-encoded (encodeURIComponent)'
export const SCHEMA_RULE =
  'a lower-case letter or _, then up to 47 lower-case letters, digits or _, but not pg_…'

/**
 * Checks options and fills in the defaults.
 *
 * @throws {TriphaseError} `INVALID_CONFIG`, naming every fault at once.
 */
export function resolveConfig(options: EngineOptions): EngineConfig {
  const faults: string[] = []
  for (const key of Object.keys(options)) {
    if (!OPTION_NAMES.has(key)) {
      const known = ['tasks', 'transactor', 'notifier', ...OPTION_NAMES]
      faults.push(`${key}: there is no such option (there are ${known.join(', ')})`)
    }
  }
  const time = (name: string, value: Duration, least = 0) => durationOr(faults, name, value, least)
  const { engine = {}, application = {} } = options
  const url = options.url ?? engine.url
  if (!isPostgresUrl(url)) {
    const missing = url === undefined || url === ''
    faults.push(`url: ${missing ? 'none was given (is the environment variable set?); ' : ''}${URL_RULE}`)
  }
  if (options.directUrl !== undefined && !isPostgresUrl(options.directUrl)) {
    faults.push(`directUrl: ${URL_RULE}`)
  }
  const schema = options.schema ?? 'triphase'
  if (!isSchemaName(schema)) faults.push(`schema: ${SCHEMA_RULE}`)
  const name = options.name ?? 'triphase'
  if (typeof name !== 'string' || !/^[\w.:/ -]{1,40}$/.test(name))
    faults.push('name: 1 to 40 letters, digits, spaces or any of _ . : / -')
  const heartbeatMs = time('heartbeat', options.heartbeat ?? '4s', 10)
  const deadAfterMs = time('deadAfter', options.deadAfter ?? '12s', 30)
  if (deadAfterMs < 3 * heartbeatMs) faults.push('deadAfter: at least three heartbeats')
  const config: EngineConfig = {
    name,
    schema,
    engine: pool(faults, 'engine', engine, { url: url ?? '', size: 6, acquireTimeout: '15s' }, 2),
    application: pool(
      faults,
      'application',
      application,
      { url: url ?? '', size: 10, acquireTimeout: '30s' },
      1,
    ),
    directUrl: options.directUrl ?? engine.url ?? url ?? '',
    queues: queueMap(faults, options.queues ?? {}),
    retentionMs: durationOr(faults, 'retention', options.retention ?? '7d', 0, LONGEST_DELAY_MS),
    heartbeatMs,
    deadAfterMs,
    graceMs: time('grace', options.grace ?? '25s'),
    abortGraceMs: time('abortGrace', options.abortGrace ?? '5s'),
    maxAnswerBytes: wholeOr(faults, 'maxAnswerBytes', options.maxAnswerBytes ?? 16 * 1024 * 1024, 1),
    guard: guardSettings(faults, options.guard ?? {}, 'guard.'),
  }
  if (faults.length > 0)
    throw new TriphaseError('INVALID_CONFIG', `The engine cannot work like this: ${faults.join('; ')}.`)
  return Object.freeze(config)
}

export function isSchemaName(name: unknown): boolean {
  return typeof name === 'string' && /^[a-z_][a-z0-9_]{0,47}$/.test(name) && !name.startsWith('pg_')
}

function pool(
  faults: string[],
  name: string,
  given: PoolConfig,
  defaults: Required<PoolConfig>,
  least: number,
): ResolvedPool {
  for (const key of Object.keys(given)) {
    if (!POOL_NAMES.has(key))
      faults.push(`${name}.${key}: there is no such option (there are ${[...POOL_NAMES].join(', ')})`)
  }
  if (given.url !== undefined && !isPostgresUrl(given.url)) faults.push(`${name}.url: ${URL_RULE}`)
  const timeout = given.acquireTimeout ?? defaults.acquireTimeout
  return {
    url: given.url ?? defaults.url,
    size: wholeOr(faults, `${name}.size`, given.size ?? defaults.size, least),
    acquireTimeoutMs: durationOr(faults, `${name}.acquireTimeout`, timeout, 1),
  }
}

/**
 * Checks the options of a guard that is no engine's.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming every fault at once.
 */
export function resolveGuard(options: GuardOptions): GuardSettings {
  const faults: string[] = []
  const settings = guardSettings(faults, options, '')
  if (faults.length === 0) return settings
  throw new TriphaseError('INVALID_OPTIONS', `The guard cannot work like this: ${faults.join('; ')}.`)
}

/**
 * Checks what is set for one transaction.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming every fault at once.
 */
export function checkTransactionOptions(options: Omit<GuardOptions, 'mode'>): void {
  const faults: string[] = 'mode' in options ? ['mode: it belongs to the engine, not to one transaction'] : []
  guardSettings(faults, { ...options, mode: 'off' }, '')
  if (faults.length > 0)
    throw new TriphaseError('INVALID_OPTIONS', `The transaction was not opened: ${faults.join('; ')}.`)
}

function guardSettings(faults: string[], given: GuardOptions, prefix: string): GuardSettings {
  for (const key of Object.keys(given)) {
    if (!GUARD_NAMES.has(key))
      faults.push(`${prefix}${key}: there is no such option (there are ${[...GUARD_NAMES].join(', ')})`)
  }
  const mode = given.mode ?? (process.env.NODE_ENV === 'production' ? 'warn' : 'error')
  if (!GUARD_MODES.includes(mode)) faults.push(`${prefix}mode: 'error', 'warn' or 'off'`)
  const { maxHold = '1s', allow = [] } = given
  if (!(allow === true || (Array.isArray(allow) && allow.every((host) => typeof host === 'string'))))
    faults.push(`${prefix}allow: a list of hosts, or true for anything`)
  const maxHoldMs = maxHold === false ? null : durationOr(faults, `${prefix}maxHold`, maxHold, 1)
  return Object.freeze({ mode, maxHoldMs, allow })
}

/**
 * Checks queues that are given at the start.
 *
 * @throws {TriphaseError} `INVALID_CONFIG`, naming every fault at once.
 */
export function resolveQueues(queues: Record<string, number | QueueConfig>): EngineConfig['queues'] {
  const faults: string[] = []
  const map = queueMap(faults, queues)
  if (faults.length === 0) return map
  throw new TriphaseError('INVALID_CONFIG', `The engine cannot start like this: ${faults.join('; ')}.`)
}

function queueMap(
  faults: string[],
  queues: Record<string, number | QueueConfig>,
): Map<string, { concurrency: number; timeoutMs: number }> {
  const map = new Map<string, { concurrency: number; timeoutMs: number }>()
  for (const [name, value] of Object.entries(queues)) {
    const queue: QueueConfig =
      typeof value === 'object' && value !== null ? value : { concurrency: value as number }
    if (!isQueueName(name)) faults.push(`queues.${name}: ${QUEUE_NAME_RULE}`)
    for (const key of Object.keys(queue)) {
      if (!QUEUE_NAMES.has(key)) faults.push(`queues.${name}.${key}: there is no such option`)
    }
    map.set(name, {
      concurrency: wholeOr(faults, `queues.${name}.concurrency`, queue.concurrency, 1),
      timeoutMs: durationOr(faults, `queues.${name}.timeout`, queue.timeout ?? '60s', 1),
    })
  }
  return map
}

/** The default most is what a timer of Node can wait; beyond it, it would fire at once. */
function durationOr(
  faults: string[],
  name: string,
  value: Duration,
  least: number,
  most: number = LONGEST_TIMER_MS,
): number {
  try {
    const length = milliseconds(value)
    if (length >= least && length <= most) return length
  } catch {
    // Named below, with the others.
  }
  const days = Math.floor(most / 86_400_000)
  faults.push(`${name}: a length of time from ${least} ms to ${days} days, such as 15000 or '15s'`)
  return least
}

function wholeOr(faults: string[], name: string, value: number, least: number): number {
  if (Number.isInteger(value) && value >= least) return value
  faults.push(`${name}: a whole number of at least ${least}`)
  return least
}

/** As `pg` reads it: a host may be missing after the `@`, where it comes with `?host=`. */
function isPostgresUrl(url: unknown): boolean {
  if (typeof url !== 'string' || !/^postgres(ql)?:\/\/./.test(url)) return false
  return URL.canParse(url) || URL.canParse(url.replace('@/', '@localhost/'))
}
