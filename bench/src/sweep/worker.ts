import { RunCount, runSubject, timed } from '../support/subject.ts'
import type { LoopOptions } from './bare-loop.ts'
import { Pace } from './pace.ts'
import { callOf, type Row } from './records.ts'
import { bareLoop, triphase } from './subjects.ts'

export interface SweepOrder {
  url: string
  jobs: number
  concurrency: number
  callMs: number
  /** A bare loop; without it, a sweep. */
  loop?: Omit<LoopOptions, 'concurrency'>
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
  const subject = loop
    ? bareLoop(url, { ...loop, concurrency }, counted)
    : await triphase(url, concurrency, counted)
  await timed(parent, async () => {
    const seconds = await subject.work()
    return { seconds, figures: pace.figures(), faults: runs.faults() }
  })
  await subject.close()
})
