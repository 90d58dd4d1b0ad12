import { AsyncLocalStorage } from 'node:async_hooks'
import type pg from 'pg'
import { type GuardOptions, resolveGuard } from '../config.ts'
import { Place, whereOf } from './place.ts'
import { GuardPolicy, warnOf } from './policy.ts'
import { enter, innermostScope, noteCheckout, outside, runInside, TransactionScope } from './scope.ts'

type Run = (...given: unknown[]) => unknown
type Callback = (error: unknown, ...rest: unknown[]) => void

const COMMENT = String.raw`(?:--[^\n]*\n|/\*[\s\S]*?\*/|\s|;)*`
const BEGINS = new RegExp(`^${COMMENT}(?:begin|start\\s+transaction)\\b`, 'i')
const COMMITS = new RegExp(`^${COMMENT}(?:commit|end)\\b(?!\\s+prepared)|;\\s*commit\\s*;?\\s*$`, 'i')
const ROLLS_BACK = new RegExp(
  `^${COMMENT}(?:abort|rollback)\\b(?!\\s+(?:(?:work|transaction)\\s+)?to\\b|\\s+prepared)|;\\s*rollback\\s*;?\\s*$`,
  'i',
)

const guardedPools = new WeakSet<object>()

/**
 * Guards the transactions that are run on the clients of a `pg` pool, from `BEGIN` to `COMMIT` or `ROLLBACK`, and the
 * checkouts that are made inside of them. Returns the same pool; one that is guarded already stays as it is. What it
 * cannot see stands in docs/guard.md.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const pool = guard(new pg.Pool({ connectionString }), { allow: ['localhost:8200'] })
 */
export function guard<Pool extends pg.Pool>(pool: Pool, options: GuardOptions = {}): Pool {
  const policy = new GuardPolicy(resolveGuard(options), warnOf)
  if (policy.mode === 'off' || guardedPools.has(pool)) return pool
  guardedPools.add(pool)
  const clients = new WeakMap<object, GuardedClient>()
  pool.on('acquire', (client) => {
    if (!clients.has(client)) clients.set(client, new GuardedClient(client, pool, policy))
  })
  pool.on('release', (_error, client) => clients.get(client)?.released())
  const connect = pool.connect as Run
  const guardedConnect = (callback?: Callback): unknown => {
    noteCheckout(pool)
    // Whoever happens to need a new connection first must not have its socket in its context.
    if (callback) {
      const bound = AsyncLocalStorage.bind(callback)
      return outside(() => connect.call(pool, bound))
    }
    const place = new Place(guardedConnect)
    return (outside(() => connect.call(pool)) as Promise<pg.PoolClient>).then((client) => {
      clients.get(client)?.acquired(place)
      return client
    })
  }
  pool.connect = guardedConnect as Pool['connect']
  return pool
}

/** One client of a guarded pool: sees its transactions begin and end. */
class GuardedClient {
  readonly #client: object
  readonly #pool: pg.Pool
  readonly #policy: GuardPolicy
  readonly #send: Run
  #scope: TransactionScope | undefined
  #asked: Place | undefined

  constructor(client: pg.PoolClient, pool: pg.Pool, policy: GuardPolicy) {
    this.#client = client
    this.#pool = pool
    this.#policy = policy
    this.#send = client.query as Run
    const query = (...given: unknown[]) => this.#query(given, query)
    client.query = query as typeof client.query
  }

  /** Checked out: at BEGIN, query builders are no longer on the way from the line that called them. */
  acquired(place: Place): void {
    this.#asked = place
  }

  /** Back in the pool, whatever its owner has left undone. */
  released(): void {
    this.#asked = undefined
    this.#end()
  }

  #query(given: unknown[], below: Run): unknown {
    const text = textOf(given[0])
    const scope = this.#scope
    if (!scope) {
      if (BEGINS.test(text) && !COMMITS.test(text)) return this.#begin(given, below)
      return this.#send.apply(this.#client, given)
    }
    if (COMMITS.test(text)) return this.#commit(scope, given)
    if (ROLLS_BACK.test(text)) return this.#run(given, () => this.#end())
    return this.#run(given)
  }

  #begin(given: unknown[], below: Run): unknown {
    const around = innermostScope()
    if (around?.beginsOn(this.#pool)) {
      this.#scope = around
      return this.#run(given, (error) => {
        if (error) this.#scope = undefined
      })
    }
    const scope = new TransactionScope(this.#policy, this.#pool)
    scope.opened = whereOf(new Place(below), this.#asked)
    scope.beginsOn(this.#pool)
    this.#scope = scope
    enter(scope)
    return this.#run(given, (error) => (error ? this.#end() : scope.open()))
  }

  #commit(scope: TransactionScope, given: unknown[]): unknown {
    const refusal = scope.refusal()
    if (!refusal) return this.#run(given, () => this.#end())
    const callback = given.at(-1)
    const rolledBack = this.#send.call(this.#client, 'ROLLBACK') as Promise<unknown>
    const refused = rolledBack.then(
      () => this.#refuse(refusal),
      () => this.#refuse(refusal),
    )
    if (typeof callback !== 'function') return refused
    refused.catch((error: unknown) => runInside(scope, () => callback(error)))
    return undefined
  }

  #refuse(refusal: Error): never {
    this.#end()
    throw refusal
  }

  /** Sends a statement; `done` hears of its end before its sender does. */
  #run(given: unknown[], done: (error: unknown) => void = () => {}): unknown {
    const scope = this.#scope as TransactionScope
    const callback = given.at(-1)
    if (typeof callback === 'function') {
      // pg calls back from its socket, which knows of no transaction.
      const inside: Callback = (error, ...rest) => {
        done(error)
        runInside(scope, () => callback(error, ...rest))
      }
      return this.#send.apply(this.#client, [...given.slice(0, -1), inside])
    }
    const sent = this.#send.apply(this.#client, given)
    if (typeof (sent as Promise<unknown> | undefined)?.then !== 'function') {
      done(undefined)
      return sent
    }
    return (sent as Promise<unknown>).then(
      (result) => {
        done(undefined)
        return result
      },
      (error: unknown) => {
        done(error)
        throw error
      },
    )
  }

  #end(): void {
    this.#scope?.close()
    this.#scope = undefined
  }
}

function textOf(statement: unknown): string {
  if (typeof statement === 'string') return statement
  const { text } = (statement ?? {}) as { text?: unknown }
  return typeof text === 'string' ? text : ''
}
