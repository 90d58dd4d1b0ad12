import { runSubject } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

const THOUSAND = 1_000

/** Runs jobs until it is told to end; says when it has begun to, and each time that a thousand more are acked. */
await runSubject<ContestantOrder>(async ({ system: name, settings, url }, parent) => {
  const system = await (await loadSystem(name)).open(url, settings)
  let acked = 0
  await system.work(
    () => {},
    () => {
      acked++
      if (acked % THOUSAND === 0) parent.tell('thousand')
    },
  )
  parent.tell('working')
  await parent.heard('end')
  await system.close()
})
