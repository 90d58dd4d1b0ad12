import { RunCount, runSubject, timed } from '../support/subject.ts'
import { Windows } from '../support/windows.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface DrainOrder extends ContestantOrder {
  jobs: number
  /** Length of the first and the last window, in seconds. */
  windowSeconds?: number
}

/** One process that runs all jobs that wait, from its first claim to its last ack. */
await runSubject<DrainOrder>(async ({ jobs, system: name, settings, url, windowSeconds = 5 }, parent) => {
  const runs = new RunCount(jobs)
  const windows = new Windows()
  const system = await (await loadSystem(name)).open(url, settings)
  await timed(parent, async () => {
    await system.work((n) => {
      runs.count(n)
      windows.count()
    })
    await system.done(jobs)
    return { figures: windows.figures(windowSeconds), faults: runs.faults() }
  })
  await system.close()
})
