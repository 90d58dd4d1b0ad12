import { EventEmitter } from 'node:events'
import type { Hint, Notifier, NotifierContext } from '../notifier.ts'

const hub = new EventEmitter().setMaxListeners(0)

/**
 * Hints between engines of one process, without the database: for tests, and for an application that has only one
 * process. Engines of the same schema hear each other.
 */
export function memoryNotifier(): Notifier {
  let stop: (() => void) | undefined
  return {
    name: 'memory',
    async start(context: NotifierContext) {
      stop?.()
      const { schema } = context.database
      const listener = (hint: Hint) => context.receive(hint)
      hub.on(schema, listener)
      stop = () => hub.off(schema, listener)
    },
    async publish(database, hints) {
      // Later, as from another process: the publisher must not meet its own hint in the middle of what it does.
      setImmediate(() => {
        for (const hint of hints) hub.emit(database.schema, hint)
      })
    },
    async stop() {
      stop?.()
      stop = undefined
    },
  }
}
