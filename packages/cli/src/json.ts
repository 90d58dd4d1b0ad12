import type { MigrationFormat, SampledRecord, SweepErrorGroup, SweepPlan, SweepStatus } from 'triphase'

/** What each command has to say, by name. */
export interface Results {
  /** `triphase migrate` */
  migrate: { schema: string; version: number; applied: number[] }
  /** `triphase migrate --print` */
  migratePrint: { schema: string; after: number; version: number; sql: string }
  /** `triphase sweep NAME migration` */
  migration: { sweep: string; format: MigrationFormat; migration: string }
  /** `loaded`: by this call, and not before. */
  load: {
    sweep: string
    loaded: boolean
    file: string
    lines: number
    bytes: number
    sha256: string
    loadedAt: string
  }
  export: { sweep: string; file: string; lines: number; done: number; errors: number; pending: number }
  check: { sweep: string; fits: boolean; faults: string[] }
  plan: { sweep: string } & SweepPlan
  sample: { sweep: string; committed: boolean; records: SampledRecord[] }
  /** `status`, `pause`, `resume`, `change`, `cancel`; of `run` and `status --follow` a line for each change. */
  status: { sweep: string } & SweepStatus
  errors: { sweep: string; groups: SweepErrorGroup[] }
  /** `errors --group GROUP`; `next`: the key for `--after`, where there may be more. */
  errorRecords: {
    sweep: string
    group: string
    errors: { key: string[]; message: string | null }[]
    next: string[] | null
  }
  retryErrors: { sweep: string; retried: number }
  /** On stderr, whatever went wrong. */
  error: { error: { code: string; message: string; stack?: string } }
}

/**
 * What `--json` prints, by command. Times are ISO texts, lengths of time milliseconds. Later versions may add fields.
 *
 * @example
 * const status = JSON.parse(stdout) as Json['status']
 * console.log(status.done, status.total)
 */
export type Json = { [Command in keyof Results]: AsJson<Results[Command]> }

type AsJson<Value> = Value extends Date
  ? string
  : Value extends object
    ? { [Key in keyof Value]: AsJson<Value[Key]> }
    : Value
