/**
 * What the exit code of `triphase` says. A number keeps its meaning in all later versions.
 *
 * @example
 * import { EXIT } from '@triphase/cli'
 *
 * if (child.exitCode === EXIT.paused) page('the sweep paused itself')
 */
export const EXIT = {
  /** Done as asked. Of a run: completed, and it marked no record as an error. */
  ok: 0,
  /** A fault of the program, of a task's code, or one that the database reported and nobody expected. */
  unexpected: 1,
  /** Wrong arguments, a sweep that does not exist, a key that is none, a file that cannot be used. Nothing was written. */
  usage: 2,
  /** The config file is missing, cannot be loaded, or says what cannot be. */
  config: 3,
  /** The database is away, has no space left, refuses the login or a file's lines, is not migrated, or its table does not fit the sweep. */
  database: 4,
  /** The run completed, with records that it marked as errors. */
  recordErrors: 5,
  /** The run is paused: by a breaker, a budget, or somebody. */
  paused: 6,
  /** The run was cancelled, or failed. */
  notCompleted: 7,
  /** There is no run or no file, or it is in a state that does not allow what was asked. */
  refused: 8,
  /** Ended by SIGINT, by Ctrl-C. The run can be gone on with. */
  interrupted: 130,
  /** Whoever read the output closed it (`| head`). */
  outputClosed: 141,
  /** Ended by SIGTERM. The run can be gone on with. */
  terminated: 143,
} as const

/** One of the exit codes. */
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]
