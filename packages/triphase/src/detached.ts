import { AsyncLocalStorage } from 'node:async_hooks'

/**
 * Runs `work` outside of the caller's asynchronous context. What the engine does for many (a batch of acks, hints, a
 * new connection of a pool) is begun by whoever comes first, and belongs to none of them: neither to the transaction
 * that happens to be open there, nor to its trace.
 */
export const detached: <Value>(work: () => Value) => Value = AsyncLocalStorage.snapshot()
