/** A place where code stops until it is told to go on. */
export interface Pause {
  /** Somebody has come to the place. */
  readonly reached: Promise<void>
  /** Comes to the place, and waits there; rejects when `signal` fires. */
  here(signal?: AbortSignal): Promise<void>
  /** Lets everybody go on, now and later. */
  go(): void
}

export function pause(): Pause {
  const reached = Promise.withResolvers<void>()
  const gone = Promise.withResolvers<void>()
  return {
    reached: reached.promise,
    go: gone.resolve,
    async here(signal) {
      reached.resolve()
      const fired = Promise.withResolvers<never>()
      const fire = () => fired.reject(signal?.reason)
      if (signal?.aborted) fire()
      signal?.addEventListener('abort', fire)
      await Promise.race([gone.promise, fired.promise]).finally(() =>
        signal?.removeEventListener('abort', fire),
      )
    },
  }
}

/** Resolves when the signal fires. */
export function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve())
  })
}
