import { once } from 'node:events'
import { createEngine, defineTask, unchecked } from 'triphase'
import { RunCount, runSubject } from '../support/subject.ts'

interface RecoverOrder {
  url: string
  jobs: number
}

/** A process with default settings whose jobs all run at the same time, until it is told to finish them. */
await runSubject<RecoverOrder>(async ({ url, jobs }, parent) => {
  const runs = new RunCount(jobs)
  const finish = parent.heard('finish')
  let begun = 0
  const task = defineTask({
    name: 'wait',
    input: unchecked<{ n: number }>(),
    run: async ({ input, signal }) => {
      runs.count(input.n)
      begun++
      if (begun === 1) parent.tell('first')
      if (begun === jobs) parent.tell('all')
      await Promise.race([finish, once(signal, 'abort')])
    },
  })
  const engine = createEngine({ url, tasks: [task], queues: { default: jobs } })
  const finished = Promise.withResolvers<void>()
  let completed = 0
  engine.telemetry.on('job:completed', () => {
    completed++
    if (completed === jobs) finished.resolve()
  })
  await engine.start()
  parent.tell('started')
  await finished.promise
  await engine.stop()
  parent.tell('faults', runs.faults())
})
