import { RunCount, runSubject, timed } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface SharingOrder extends ContestantOrder {
  jobs: number
}

const REPORT_MS = 10

/** One of several processes that share a queue: says how many jobs it has acked until it is told that it is enough. */
await runSubject<SharingOrder>(async ({ jobs, system: name, settings, url }, parent) => {
  const runs = new RunCount(jobs)
  const system = await (await loadSystem(name)).open(url, settings)
  await timed(parent, async () => {
    const began = performance.now()
    let acked = 0
    let last = began
    await system.work(
      (n) => runs.count(n),
      () => {
        acked++
        last = performance.now()
      },
    )
    const reports = setInterval(() => parent.tell('acked', acked), REPORT_MS)
    await parent.heard('enough')
    clearInterval(reports)
    return { seconds: (last - began) / 1_000, faults: runs.faultsOfSome() }
  })
  await system.close()
})
