import { runSubject, timed } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface EnqueueOrder extends ContestantOrder {
  jobs: number
  /** Calls under way at a time. */
  atOnce: number
  /** Jobs a call. */
  batch: number
  /** Each job in a transaction of the application, with a row of its own. */
  withRow: boolean
}

/** One process that writes jobs, from its first call to its last answer. */
await runSubject<EnqueueOrder>(async (order, parent) => {
  const { jobs, atOnce, batch, withRow } = order
  const system = await (await loadSystem(order.system)).open(order.url, order.settings)
  let next = 0

  const enqueue = (from: number): Promise<unknown> => {
    if (batch > 1) return system.enqueueMany(from, Math.min(batch, jobs - from))
    if (!withRow) return system.enqueue(from)
    if (!system.enqueueWithRow) throw new Error(`${order.system} knows no transactions of the application`)
    return system.enqueueWithRow(from)
  }

  const lane = async (): Promise<void> => {
    for (let from = next; from < jobs; from = next) {
      next += batch
      await enqueue(from)
    }
  }

  await timed(parent, async () => {
    await Promise.all(Array.from({ length: atOnce }, lane))
    return {}
  })
  await system.close()
})
