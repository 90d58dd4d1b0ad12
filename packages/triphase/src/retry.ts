import { setTimeout as delay } from 'node:timers/promises'

const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 3_000

/**
 * Does an idempotent thing until it succeeds, as long as its failures may pass and nobody says stop; pauses grow
 * from 0.1 s to 3 s, with jitter.
 *
 * @param mayPass whether trying again can help after this error.
 * @param onFailure told of every failure that is tried again, with the pause in milliseconds.
 * @throws the last error, when it cannot pass or `signal` fires.
 */
export async function untilDone<Value>(
  work: () => Promise<Value>,
  mayPass: (error: unknown) => boolean,
  signal: AbortSignal,
  onFailure: (error: unknown, pauseMs: number) => void,
): Promise<Value> {
  for (let failures = 0; ; failures++) {
    try {
      return await work()
    } catch (error) {
      if (!mayPass(error) || signal.aborted) throw error
      const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures) * (0.5 + Math.random() / 2)
      onFailure(error, pauseMs)
      await delay(pauseMs, undefined, { signal }).catch(() => {
        throw error
      })
    }
  }
}
