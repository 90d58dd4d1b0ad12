import { createEngine, defineTask, unchecked } from 'triphase'
import { RunCount, runSubject, timed } from '../support/subject.ts'

interface DrainOrder {
  jobs: number
  url: string
  concurrency: number
}

/** An engine with default settings, from its start to its last ack. */
await runSubject<DrainOrder>(async ({ jobs, url, concurrency }, parent) => {
  const runs = new RunCount(jobs)
  const task = defineTask({
    name: 'no-op',
    input: unchecked<{ n: number }>(),
    run: ({ input }) => runs.count(input.n),
  })
  const engine = createEngine({ url, tasks: [task], queues: { default: concurrency } })
  const finished = Promise.withResolvers<void>()
  let completed = 0
  engine.telemetry.on('job:completed', () => {
    completed++
    if (completed === jobs) finished.resolve()
  })
  await timed(parent, async () => {
    await engine.start()
    await finished.promise
    return { faults: runs.faults() }
  })
  await engine.stop()
})
