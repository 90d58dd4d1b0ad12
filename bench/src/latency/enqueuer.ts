import { setTimeout as delay } from 'node:timers/promises'
import { runSubject } from '../support/subject.ts'
import type { ContestantOrder } from '../systems/contestant.ts'
import { loadSystem } from '../systems/system.ts'

export interface EnqueuerOrder extends ContestantOrder {
  jobs: number
  /** Pause between two jobs, in ms: something between these two. */
  gapMs: readonly [number, number]
}

/** Writes jobs one by one at random gaps, and tells when each was begun to be written. */
await runSubject<EnqueuerOrder>(
  async ({ system: name, settings, url, jobs, gapMs: [least, most] }, parent) => {
    const system = await (await loadSystem(name)).open(url, settings)
    const begun: number[] = []
    for (let n = 0; n < jobs; n++) {
      await delay(least + Math.random() * (most - least))
      begun.push(now())
      await system.enqueue(n)
    }
    parent.tell('times', begun)
    await parent.heard('end')
    await system.close()
  },
)

/** In ms, on the clock that all processes of a machine share. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
