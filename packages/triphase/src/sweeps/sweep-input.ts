import type { StandardSchemaV1 } from '@standard-schema/spec'

/** Input of a sweep's jobs: the steward of a run, one of its pages, or its hook. */
export interface SweepInput {
  run: string
  page?: string
  hook?: true
}

/** Only the engine enqueues jobs of sweeps. */
export const sweepInput: StandardSchemaV1<SweepInput, SweepInput> = {
  '~standard': {
    version: 1,
    vendor: 'triphase',
    validate(value) {
      if (isSweepInput(value)) return { value }
      return {
        issues: [{ message: 'a job of a sweep is not enqueued by hand: use engine.sweep(sweep).run()' }],
      }
    },
  },
}

function isSweepInput(value: unknown): value is SweepInput {
  return typeof value === 'object' && value !== null && 'run' in value && typeof value.run === 'string'
}
