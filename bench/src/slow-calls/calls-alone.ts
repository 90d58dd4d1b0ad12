import { RunCount, runSubject, timed } from '../support/subject.ts'
import { type SlowCallsOrder, slowCall } from './call.ts'

/** The calls, so many at a time, and no database. */
await runSubject<SlowCallsOrder>(async (order, parent) => {
  const runs = new RunCount(order.jobs)
  const call = slowCall(order)
  let next = 0

  const slot = async (): Promise<void> => {
    for (let n = next++; n < order.jobs; n = next++) {
      runs.count(n)
      await call(n)
    }
  }

  await timed(parent, async () => {
    await Promise.all(Array.from({ length: order.concurrency }, slot))
    return { faults: runs.faults() }
  })
})
