import { storedError } from '../errors.ts'
import type { Notifier, NotifierContext } from '../notifier.ts'
import { queuesWithWork } from '../store/heartbeat.ts'

/** @see pollingNotifier */
export interface PollingOptions {
  /** Pause between two questions while there is work, in milliseconds. Default 50. */
  minMs?: number
  /** Longest pause, in milliseconds; beyond it the heartbeat asks anyway. Default 4000. */
  maxMs?: number
}

/**
 * No notifications at all: one cheap question for all queues, often while there is work and more and more rarely when
 * there is none. For databases behind a transaction-mode pooler without a direct connection.
 */
export function pollingNotifier(options: PollingOptions = {}): Notifier {
  const minMs = options.minMs ?? 50
  const maxMs = options.maxMs ?? 4_000
  let context: NotifierContext | undefined
  let timer: NodeJS.Timeout | undefined
  let pause = minMs

  function again(): void {
    clearTimeout(timer)
    if (context) timer = setTimeout(() => void poll(), pause)
  }

  async function poll(): Promise<void> {
    const current = context
    if (!current) return
    try {
      const queues = await queuesWithWork(current.database, current.queues)
      if (context !== current) return
      pause = queues.length > 0 ? minMs : Math.min(maxMs, pause * 1.5)
      for (const queue of queues) current.receive({ kind: 'available', queue })
    } catch (error) {
      pause = Math.min(maxMs, pause * 2)
      current.telemetry.emit('statement:failed', {
        statement: 'poll',
        error: storedError(error),
        retryInMs: pause,
      })
    }
    if (context === current) again()
  }

  return {
    name: 'polling',
    async start(given) {
      context = given
      pause = minMs
      again()
    },
    async publish(_database, hints) {
      // Own hints are worth following at once; other processes find the work by asking.
      for (const hint of hints) context?.receive(hint)
      if (pause > minMs && context) {
        pause = minMs
        again()
      }
    },
    observe(foundWork) {
      if (!foundWork || pause === minMs || !context) return
      pause = minMs
      again()
    },
    async stop() {
      context = undefined
      clearTimeout(timer)
    },
  }
}
