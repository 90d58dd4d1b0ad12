import { RunCount, runSubject } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface LatencyWorkerOrder extends ContestantOrder {
  jobs: number
}

/** Runs the jobs, and tells when the handler of each began. */
await runSubject<LatencyWorkerOrder>(async ({ system: name, settings, url, jobs }, parent) => {
  const runs = new RunCount(jobs)
  const began: number[] = []
  const system = await (await loadSystem(name)).open(url, settings)
  await system.work((n) => {
    began[n] ??= Number(process.hrtime.bigint()) / 1e6
    runs.count(n)
  })
  parent.tell('working')
  await system.done(jobs)
  parent.tell('times', began)
  await system.close()
  parent.tell('faults', runs.faults())
})
