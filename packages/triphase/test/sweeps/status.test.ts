import { describe, expect, test } from 'vitest'
import type { RunRow } from '../../src/store/sweep-run.ts'
import { statusOf } from '../../src/sweeps/sweep-status.ts'

const NOW = 1_000_000

/** A run of 1,000 records, of which 100 are through; `samples` as [seconds ago, settled then]. */
function run(samples: [number, number][], more: Partial<RunRow> = {}): RunRow {
  return {
    state: 'running',
    total: 1_000,
    done: 90,
    errors: 10,
    nowMs: NOW,
    samples: samples.map(([ago, settled]) => ({ at: NOW - ago * 1_000, settled })),
    hasSteward: true,
    hasProcess: true,
    ...more,
  } as RunRow
}

describe('the rate of a run, and how long it will take', () => {
  test('are those of the window that is kept', () => {
    const status = statusOf(
      run([
        [10, 0],
        [6, 40],
        [2, 80],
      ]),
    )
    expect(status).toMatchObject({ recordsPerSecond: 10, etaMs: 90_000 })
  })

  test('are not known before a second', () => {
    expect(statusOf(run([[0.5, 90]]))).toMatchObject({ recordsPerSecond: null, etaMs: null })
    expect(statusOf(run([]))).toMatchObject({ recordsPerSecond: null, etaMs: null })
  })

  test('leave out a night in which nobody worked', () => {
    const status = statusOf(
      run([
        [40_004, 0],
        [40_002, 60],
        [40_000, 80],
        [5, 80],
        [2, 92],
      ]),
    )
    expect(status).toMatchObject({ recordsPerSecond: 4, etaMs: 225_000 })
  })

  test('are not known while nobody works', () => {
    expect(
      statusOf(
        run([
          [100, 0],
          [40, 100],
        ]),
      ),
    ).toMatchObject({ recordsPerSecond: null, etaMs: null })
    expect(
      statusOf(
        run(
          [
            [4, 0],
            [2, 100],
          ],
          { state: 'paused' },
        ),
      ),
    ).toMatchObject({ recordsPerSecond: null })
  })

  test('of what stands still are nothing and unknown', () => {
    expect(
      statusOf(
        run([
          [10, 100],
          [2, 100],
        ]),
      ),
    ).toMatchObject({ recordsPerSecond: 0, etaMs: null })
  })
})
