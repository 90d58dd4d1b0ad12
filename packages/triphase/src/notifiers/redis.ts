import { Redis, type RedisOptions } from 'ioredis'
import { storedError } from '../errors.ts'
import { type Notifier, type NotifierContext, parseHint } from '../notifier.ts'
import { Poller } from './polling.ts'

/** @see redisNotifier */
export interface RedisNotifierOptions {
  /** Where Redis is, as `redis://user:password@host:6379` or `rediss://…`. */
  url: string
  /** Begins the channel's name, `PREFIX:SCHEMA`. One for each database where several share a Redis. Default `'triphase'`. */
  prefix?: string
  /** More settings of ioredis, such as `tls` or `sentinels`. */
  redis?: RedisSettings
}

/** What `ioredis` takes, but for how it reads replies. */
export type RedisSettings = Omit<RedisOptions, 'replyMapping'>

const RECONNECT_MS = 4_000
const CHECK_MS = 30_000
const ANSWER_MS = 10_000

/**
 * Hints over the publish and subscribe of a Redis, for teams that have one and no direct connection to their Postgres.
 * Redis carries only hints: jobs live in Postgres, and while Redis is away the process polls. Needs `ioredis`.
 *
 * @example
 * import { redisNotifier } from 'triphase/redis'
 * createEngine({ url, notifier: redisNotifier({ url: process.env.REDIS_URL }), queues: { default: 10 } })
 */
export function redisNotifier(options: RedisNotifierOptions): Notifier {
  let subscription: Subscription | undefined
  let publisher: Redis | undefined
  let failure: Error | undefined
  return {
    name: 'redis',
    async start(context) {
      subscription ??= new Subscription(context, options)
      await subscription.firstTry
    },
    async publish(database, hints) {
      if (hints.length === 0) return
      subscription?.quicken()
      publisher ??= connection(options, { maxRetriesPerRequest: 1 }).on('error', (error) => {
        failure = error
      })
      const [redis, channel] = [publisher, channelOf(options, database.schema)]
      try {
        await Promise.all(hints.map((hint) => redis.publish(channel, JSON.stringify(hint))))
      } catch (error) {
        // Of a connection that it cannot open ioredis says in a publish only how often it tried.
        throw unreachable(/max retries/.test((error as Error).message) ? (failure ?? error) : error)
      }
    },
    observe(foundWork) {
      if (foundWork) subscription?.quicken()
    },
    async stop() {
      subscription?.stop()
      publisher?.disconnect()
      subscription = undefined
      publisher = undefined
    },
  }
}

/** One connection that listens: opened again for as long as the engine runs. */
class Subscription {
  readonly firstTry: Promise<void>
  readonly #context: NotifierContext
  readonly #channel: string
  readonly #redis: Redis
  readonly #poller: Poller
  readonly #tried = Promise.withResolvers<void>()
  readonly #check: NodeJS.Timeout
  #connected: boolean | undefined
  #stopped = false
  #error: unknown = new Error('the connection was closed')

  constructor(context: NotifierContext, options: RedisNotifierOptions) {
    this.#context = context
    this.#channel = channelOf(options, context.database.schema)
    this.#poller = new Poller(context)
    this.firstTry = this.#tried.promise
    this.#redis = connection(options, { autoResubscribe: false, enableOfflineQueue: false })
    this.#redis.on('error', (error) => {
      this.#error = error
    })
    this.#redis.on('ready', () => void this.#subscribe())
    this.#redis.on('close', () => this.#lost())
    this.#redis.on('message', (_channel: string, payload: string) => this.#received(payload))
    // A network that drops packets says nothing: a question now and then finds out.
    this.#check = setInterval(() => void this.#stillThere(), CHECK_MS).unref()
  }

  /** There is work: where this process polls, it polls quickly. */
  quicken(): void {
    this.#poller.quicken()
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#check)
    this.#poller.stop()
    this.#redis.disconnect()
    this.#tried.resolve()
  }

  async #subscribe(): Promise<void> {
    try {
      await this.#redis.subscribe(this.#channel)
    } catch (error) {
      this.#error = error
      this.#redis.disconnect(true)
      return
    }
    if (this.#stopped) return
    const again = this.#connected === false
    this.#poller.stop()
    this.#say(true, null)
    if (again) this.#context.receive({ kind: 'resync' })
  }

  async #stillThere(): Promise<void> {
    if (this.#connected !== true) return
    await this.#redis.ping().catch((error: unknown) => {
      this.#error = error
      this.#redis.disconnect(true)
    })
  }

  #lost(): void {
    if (this.#stopped) return
    this.#poller.start()
    if (this.#connected !== false) this.#say(false, this.#error)
  }

  #received(payload: string): void {
    const hint = this.#stopped ? null : parseHint(payload)
    if (hint) this.#context.receive(hint)
  }

  #say(connected: boolean, error: unknown): void {
    this.#connected = connected
    const event = { notifier: 'redis', connected, error: connected ? null : storedError(error) }
    this.#context.telemetry.emit('notifier:changed', event)
    this.#tried.resolve()
  }
}

function unreachable(cause: unknown): Error {
  const message = cause instanceof Error ? cause.message : String(cause)
  return new Error(`Redis cannot be reached: ${message}. Other processes find these jobs by polling.`, {
    cause,
  })
}

function channelOf({ prefix = 'triphase' }: RedisNotifierOptions, schema: string): string {
  return `${prefix}:${schema}`
}

function connection({ url, redis }: RedisNotifierOptions, own: RedisSettings): Redis {
  const settings: RedisSettings = {
    connectTimeout: ANSWER_MS,
    commandTimeout: ANSWER_MS,
    retryStrategy: (times) => Math.min(times * 100, RECONNECT_MS),
    ...redis,
    ...own,
  }
  const client = new Redis(url, settings)
  // Unheard, ioredis would print it; a publish that fails rejects with it, and a subscription says it.
  client.on('error', () => {})
  return client
}
