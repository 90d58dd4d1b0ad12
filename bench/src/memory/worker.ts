import { memory } from '../support/memory.ts'
import { RunCount, runSubject } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface MemoryOrder extends ContestantOrder {
  /** Told at each of these counts of jobs. */
  counts: readonly number[]
}

/** Runs jobs, and at some counts of them tells how much memory the process has, in MiB. */
await runSubject<MemoryOrder>(async ({ counts, system: name, settings, url }, parent) => {
  const runs = new RunCount(counts.at(-1) ?? 0)
  const system = await (await loadSystem(name)).open(url, settings)
  await system.work((n) => runs.count(n))
  for (const count of counts) {
    await system.done(count)
    parent.tell('memory', await memory())
  }
  await system.close()
  parent.tell('faults', runs.faults())
})
