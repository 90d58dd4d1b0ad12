import { RunCount, runSubject, timed } from '../support/subject.ts'
import { Pace } from './pace.ts'
import { callOf, type Row } from './records.ts'
import { bareLoop, type LoopKind, triphase } from './subjects.ts'

export interface SweepOrder {
  url: string
  jobs: number
  concurrency: number
  callMs: number
  /** A bare loop; without it, a sweep. */
  loop?: LoopKind
}

/** One process that goes over all records. */
await runSubject<SweepOrder>(async ({ url, jobs, concurrency, callMs, loop }, parent) => {
  const runs = new RunCount(jobs)
  const pace = new Pace(jobs)
  const call = callOf(callMs)
  const counted = (row: Row) => {
    runs.count(Number(row.id) - 1)
    pace.count()
    return call(row)
  }
  const subject = await (loop
    ? bareLoop(url, loop, concurrency, counted)
    : triphase(url, concurrency, counted))
  await timed(parent, async () => {
    const seconds = await subject.work()
    return { seconds, figures: pace.figures(), faults: runs.faults() }
  })
  await subject.close()
})
