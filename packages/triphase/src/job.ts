/** States of a job. The first four are live, the last three are final. */
export type JobState =
  | 'scheduled'
  | 'available'
  | 'executing'
  | 'retryable'
  | 'completed'
  | 'cancelled'
  | 'discarded'

/** Which of a queue's available jobs go first; equal ones go in the order in which they became available. */
export type Priority = 'urgent' | 'high' | 'normal' | 'low'

export const PRIORITIES: readonly Priority[] = ['urgent', 'high', 'normal', 'low']

/** A job as `engine.job(id)` returns it. */
export interface Job {
  id: string
  task: string
  queue: string
  state: JobState
  priority: Priority
  /** Attempts begun that count towards `maxAttempts`. */
  attempt: number
  maxAttempts: number
  /** How often a process died while it ran this job. */
  crashCount: number
  input: unknown
  /** What the handler returned; only once completed. */
  result: unknown
  /** Why it was cancelled or discarded. */
  error: unknown
  tags: string[]
  insertedAt: Date
  /** When it is due, or was. */
  runAt: Date
  claimedAt: Date | null
  finishedAt: Date | null
}

/** A job in the hands of a worker: the row as the claim returned it. */
export interface ClaimedJob {
  id: string
  claimNo: number
  attempt: number
  maxAttempts: number
  crashCount: number
  timeoutMs: number | null
  queue: string
  task: string
  input: unknown
  tags: string[]
  insertedAt: Date
  claimedAt: Date
  traceparent: string | null
}
