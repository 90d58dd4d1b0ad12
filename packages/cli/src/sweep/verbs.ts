import { cancel } from './cancel.ts'
import { change } from './change.ts'
import { check } from './check.ts'
import { errors } from './errors.ts'
import { exportLines } from './export.ts'
import { load } from './load.ts'
import { migration } from './migration.ts'
import { pause } from './pause.ts'
import { plan } from './plan.ts'
import { resume } from './resume.ts'
import { retryErrors } from './retry-errors.ts'
import { run } from './run.ts'
import { sample } from './sample.ts'
import { status } from './status.ts'
import type { SweepVerb } from './verb.ts'

/** All that can be done with a sweep, in the order in which one comes to need it. */
export const VERBS: readonly SweepVerb[] = [
  load,
  migration,
  check,
  plan,
  sample,
  run,
  status,
  errors,
  retryErrors,
  exportLines,
  pause,
  resume,
  change,
  cancel,
]
