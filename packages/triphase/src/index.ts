export {
  adviseConnections,
  type BusyConnections,
  type ConnectionAdvice,
  type ConnectionLimits,
  type ConnectionLoad,
  type ObservedTask,
  observedLoad,
} from './adviser.ts'
export type { Backoff } from './backoff.ts'
export type { Allowed, EngineOptions, GuardMode, GuardOptions, PoolConfig, QueueConfig } from './config.ts'
export type { Duration } from './duration.ts'
export {
  type CreateEngineOptions,
  createEngine,
  Engine,
  type EnqueueInTransaction,
  type InTransaction,
  type NeedsTransactor,
  type StartOptions,
  type TransactionOf,
} from './engine.ts'
export {
  type ErrorCode,
  Permanent,
  RejectedAnswer,
  RetryAfter,
  type StoredError,
  TriphaseError,
} from './errors.ts'
export type { TransactionOptions } from './guard/transaction.ts'
export type { ClaimedJob, Job, JobState, Priority } from './job.ts'
export { type Hint, type Notifier, type NotifierContext, parseHint } from './notifier.ts'
export { memoryNotifier } from './notifiers/memory.ts'
export { type PollingOptions, pollingNotifier } from './notifiers/polling.ts'
export { postgresNotifier } from './notifiers/postgres.ts'
export type { EnqueueOptions } from './queue/enqueuer.ts'
export type { HeldConnection } from './queue/holds.ts'
export type { ConnectionsSnapshot, PoolState } from './queue/pools.ts'
export {
  type AlreadyDone,
  alreadyDone,
  type CallContext,
  type CommitContext,
  defineStagedTask,
  type KnownAnswer,
  knownAnswer,
  type PrepareContext,
  type StagedTaskDefinition,
  stagedTasksFor,
} from './staged.ts'
export type { CancelOutcome } from './store/cancel.ts'
export type { Database } from './store/database.ts'
export type { InsertedJob } from './store/insert.ts'
export type { JobAttempt } from './store/inspect.ts'
export { migrationSql, SCHEMA_VERSION } from './store/migrate.ts'
export { pgTransactor, type Transactor } from './store/transactor.ts'
export { defineSweep } from './sweeps/define-sweep.ts'
export type { RunState } from './sweeps/states.ts'
export type {
  EachContext,
  Sweep,
  SweepBreaker,
  SweepBudget,
  SweepDefinition,
  SweepDirection,
  SweepDoneContext,
  SweepOrder,
  SweepTable,
} from './sweeps/sweep.ts'
export type { SweepChanges } from './sweeps/sweep-changes.ts'
export type { SampledRecord, SweepControl, SweepErrorGroup, SweepPlan } from './sweeps/sweep-control.ts'
export type { SweepStatus } from './sweeps/sweep-status.ts'
export type { MigrationFormat } from './sweeps/table-migration.ts'
export {
  type AbandonContext,
  cancel,
  complete,
  defineTask,
  discard,
  type ExecutionContext,
  type JobContext,
  type Outcome,
  snooze,
  type Task,
  type TaskDefinition,
  type TaskOptions,
  type TaskReference,
  unchecked,
} from './task.ts'
export type {
  CheckoutSums,
  JobEvent,
  Ledger,
  PhaseConnections,
  PhaseLedger,
  TaskConnections,
  Telemetry,
  TelemetryEvents,
} from './telemetry.ts'
