import { runSubject, timed } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

/** A process that waits for jobs, and is measured until it is told to end; then it runs the jobs that there are. */
await runSubject<ContestantOrder>(async ({ system: name, settings, url }, parent) => {
  const system = await (await loadSystem(name)).open(url, settings)
  let runs = 0
  await system.work(() => runs++)
  await timed(parent, async () => {
    await parent.heard('end')
    return { figures: { runs } }
  })
  await parent.heard('jobs')
  await system.done(1)
  parent.tell('runs', runs)
  await parent.heard('close')
  await system.close()
})
