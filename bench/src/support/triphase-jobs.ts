import { createEngine, defineTask, unchecked } from 'triphase'
import type { Stage } from './stage.ts'

const BATCH = 1_000

/** Migrates the stage's database and enqueues the jobs 0, 1, 2, … of a task. */
export async function enqueueNumbered(stage: Stage, jobs: number, name = 'no-op'): Promise<void> {
  const task = defineTask({ name, input: unchecked<{ n: number }>(), run: () => {} })
  const engine = createEngine({ url: stage.url })
  try {
    await engine.migrate()
    for (let from = 0; from < jobs; from += BATCH) {
      const length = Math.min(BATCH, jobs - from)
      await engine.enqueueMany(
        task,
        Array.from({ length }, (_, index) => ({ input: { n: from + index } })),
      )
    }
  } finally {
    await engine.stop()
  }
}

const COUNT = `
SELECT (SELECT count(*) FROM triphase.job)::int AS live, count(*)::int AS rows,
       count(DISTINCT (input ->> 'n')::int)::int AS jobs,
       count(*) FILTER (WHERE state = 'completed' AND finished_at IS NOT NULL)::int AS completed
FROM triphase.job_history`

/** Faults of a database in which each of so many numbered jobs has to be completed, once, with its history. */
export async function historyFaults(stage: Stage, jobs: number): Promise<string[]> {
  const [found] = await stage.query<{ live: number; rows: number; jobs: number; completed: number }>(COUNT)
  return [
    ...differs('live jobs left', found?.live, 0),
    ...differs('rows in history', found?.rows, jobs),
    ...differs('different jobs in history', found?.jobs, jobs),
    ...differs('completed jobs in history', found?.completed, jobs),
  ]
}

/** A fault where a count is not what it has to be. */
export function differs(what: string, found: number | undefined, expected: number): string[] {
  return found === expected ? [] : [`${what}: ${found}, not ${expected}`]
}
