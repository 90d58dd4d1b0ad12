import type { Database } from './database.ts'

const PAUSE = /* sql */ `
INSERT INTO triphase.queue (name, paused_at) VALUES ($1, clock_timestamp())
ON CONFLICT (name) DO UPDATE
SET paused_at = coalesce(queue.paused_at, excluded.paused_at), changed_at = clock_timestamp()`

const RESUME = /* sql */ `
UPDATE triphase.queue SET paused_at = NULL, changed_at = clock_timestamp() WHERE name = $1`

const SET_CONCURRENCY = /* sql */ `
INSERT INTO triphase.queue (name, concurrency) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET concurrency = excluded.concurrency, changed_at = clock_timestamp()`

/** Stops all processes from claiming a queue's jobs; running ones go on. */
export async function pauseQueue(database: Database, queue: string): Promise<void> {
  await database.query(PAUSE, [queue])
}

export async function resumeQueue(database: Database, queue: string): Promise<void> {
  await database.query(RESUME, [queue])
}

/** Overrides the configured concurrency of a queue in every process; null ends that. */
export async function setQueueConcurrency(
  database: Database,
  queue: string,
  concurrency: number | null,
): Promise<void> {
  await database.query(SET_CONCURRENCY, [queue, concurrency])
}
