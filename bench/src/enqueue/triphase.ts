import { createEngine, defineTask, unchecked } from 'triphase'
import { runSubject, timed } from '../support/subject.ts'

interface EnqueueOrder {
  jobs: number
  url: string
  /** Calls under way at a time. */
  atOnce: number
  /** Jobs a call; 1: `enqueue`, else `enqueueMany`. */
  batch: number
}

/** An engine with default settings that only enqueues, from its first connection to its last answer. */
await runSubject<EnqueueOrder>(async ({ jobs, url, atOnce, batch }, parent) => {
  const task = defineTask({ name: 'no-op', input: unchecked<{ n: number }>(), run: () => {} })
  const engine = createEngine({ url })
  let next = 0

  const enqueue = (from: number): Promise<unknown> => {
    if (batch === 1) return engine.enqueue(task, { n: from })
    const length = Math.min(batch, jobs - from)
    return engine.enqueueMany(
      task,
      Array.from({ length }, (_, index) => ({ input: { n: from + index } })),
    )
  }

  const lane = async (): Promise<void> => {
    for (let from = next; from < jobs; from = next) {
      next += batch
      await enqueue(from)
    }
  }

  await timed(parent, async () => {
    await Promise.all(Array.from({ length: atOnce }, lane))
    return {}
  })
  await engine.stop()
})
