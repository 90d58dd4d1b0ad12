import { type Allowed, type GuardOptions, resolveGuard } from '../config.ts'
import { opening } from './place.ts'
import { GuardPolicy, warnOf } from './policy.ts'
import { innermostScope, noteCheckout, runAllowing, runInside, TransactionScope } from './scope.ts'

/** What can be set for one transaction, beside what holds for all of its engine or pool. */
export type TransactionOptions = Omit<GuardOptions, 'mode'>

type RunInside = <Value>(work: () => Promise<Value>) => Promise<Value>

/** One transaction that is about to be opened. */
export interface OpeningTransaction {
  policy: GuardPolicy
  /** The pool, or what else its connection is from. */
  source: unknown
  options: TransactionOptions
  /** Where it is opened, in words; may be said later (`nameTransaction`). */
  opened: (() => string) | undefined
}

/**
 * Runs a transaction that somebody else opens and commits. `open` does that, and hands what is to be done inside to
 * the function that it gets: this rejects when the transaction must not be committed.
 */
export async function guarded<Value>(
  { policy, source, options, opened }: OpeningTransaction,
  open: (inside: RunInside) => Promise<Value>,
): Promise<Value> {
  if (policy.mode === 'off') return open((work) => work())
  noteCheckout(source)
  // One transaction that passes through several guards, as an engine's does by way of a guarded library.
  if (innermostScope()?.isOpenedBy(source)) return open((work) => work())
  const scope = new TransactionScope(policy, source, options)
  scope.opened = opened
  const inside: RunInside = async (work) => {
    scope.open()
    const value = await runInside(scope, work)
    const refusal = scope.refusal()
    if (refusal) throw refusal
    return value
  }
  try {
    return await runInside(scope, () => open(inside))
  } finally {
    scope.close()
  }
}

/** A library with a function `transaction`, which takes the work that is to be done inside. */
export interface RunsTransactions {
  transaction: (...given: never[]) => unknown
}

/**
 * Guards the transactions of a library whose `transaction` takes a callback, such as Drizzle's. Returns the same
 * object. Guard its pool as well, so that statements beside the transaction are seen (`db.select` where `tx.select`
 * was meant).
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong option.
 * @example
 * const db = guardTransactions(drizzle(guard(pool)))
 */
export function guardTransactions<Library extends RunsTransactions>(
  library: Library,
  options: GuardOptions = {},
): Library {
  const policy = new GuardPolicy(resolveGuard(options), warnOf)
  const source = (library as { $client?: unknown }).$client ?? library
  const run = library.transaction as (...given: unknown[]) => Promise<unknown>
  const transaction = (...given: unknown[]): Promise<unknown> => {
    const [work, ...rest] = given
    if (typeof work !== 'function') return run.apply(library, given)
    const opened = opening(policy, transaction)
    return guarded({ policy, source, options: {}, opened }, (inside) =>
      run.call(library, (...inner: unknown[]) => inside(async () => work(...inner)), ...rest),
    )
  }
  return Object.assign(library, { transaction })
}

/**
 * Runs `work`, in which these hosts may be called whatever transaction is open.
 *
 * @param allowed hosts (`vault.internal`, `localhost:8200`, `.example.com`), or true for anything.
 * @example
 * const key = await allowCalls(['vault.internal'], () => vault.read('key'))
 */
export function allowCalls<Value>(allowed: Allowed, work: () => Value): Value {
  return runAllowing(allowed, work)
}
