import { RunCount, runSubject, timed } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'
import { type SlowCallsOrder, slowCall } from './call.ts'

/** Jobs that are nothing but the call, run by any system. */
await runSubject<SlowCallsOrder & ContestantOrder>(async (order, parent) => {
  const runs = new RunCount(order.jobs)
  const call = slowCall(order)
  const system = await (await loadSystem(order.system)).open(order.url, order.settings)
  await timed(parent, async () => {
    await system.work((n) => {
      runs.count(n)
      return call(n)
    })
    await system.done(order.jobs)
    return { faults: runs.faults() }
  })
  await system.close()
})
