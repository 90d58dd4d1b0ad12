/** Jobs of one queue, at full length. */
interface QueueLoad {
  queue: string
  /** Jobs at a time. */
  workers: number
  jobs: number
  /** The shortest and the longest call to the model server, in ms. */
  callMs: readonly [number, number]
}

/** What one application has to do, at full length. */
export interface Load {
  queues: readonly QueueLoad[]
  /** Longest wait for a connection of the application, in ms. */
  acquireTimeoutMs: number
  /** How often a job is tried before it counts as failed. */
  tries: number
  /** Calls, time limits and pauses are this many times shorter here. */
  factor: number
}

/** What the measured programs are told. */
export interface IncidentOrder {
  load: Load
  /** Of the application's pool. */
  url: string
  /** Of the engine's pool, where there is an engine. */
  engineUrl: string
  directUrl: string
  /** Of the model server. */
  api: string
}

/** Of whatever wrote the jobs and whatever runs them. */
export const TASK = 'analyse'

interface NumberedJob {
  n: number
  queue: string
}

/** Every job with its number, from 0, queue after queue. */
export function jobsOf({ queues }: Load): NumberedJob[] {
  return queues
    .flatMap(({ queue, jobs }) => Array.from({ length: jobs }, () => queue))
    .map((queue, n) => ({ n, queue }))
}

/** Multiples of it spread evenly over the unit interval, in whatever order that has no pattern. */
const GOLDEN = (Math.sqrt(5) - 1) / 2

/** How long each job's call takes here, in ms, by number: evenly spread, and the same whoever makes it. */
export function callsOf({ queues, factor }: Load): number[] {
  return queues.flatMap(({ jobs, callMs: [least, most] }) =>
    Array.from(
      { length: jobs },
      (_, index) => (least + (most - least) * (((index + 1) * GOLDEN) % 1)) / factor,
    ),
  )
}
