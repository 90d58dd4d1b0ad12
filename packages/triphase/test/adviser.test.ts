import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { adviseConnections, observedLoad, TriphaseError } from '../src/index.ts'

/** The queues of a camera platform: 63 slots, calls of 5 to 30 s, two short transactions a job. */
const CAMERAS = { concurrency: 63, callMs: 15_000, holdMs: 12 }

const seconds = fc.double({ min: 0.1, max: 600_000, noNaN: true })
const LOADS = fc.record(
  {
    concurrency: fc.integer({ min: 1, max: 2_000 }),
    processes: fc.integer({ min: 1, max: 20 }),
    callMs: seconds,
    holdMs: fc.double({ min: 0.01, max: 5_000, noNaN: true }),
    arrivalsPerSecond: fc.double({ min: 0.001, max: 10_000, noNaN: true }),
  },
  { requiredKeys: ['concurrency', 'callMs', 'holdMs'] },
)

/** Slots that hold and wait for exponential times, simulated: the share of the time in which more than `busy` hold. */
function shareAbove(busy: number, slots: number, holdMs: number, callMs: number): number {
  let holding = 0
  let above = 0
  let time = 0
  let seed = 1
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647
    return seed / 2_147_483_647
  }
  for (let step = 0; step < 400_000; step++) {
    const rate = holding / holdMs + (slots - holding) / callMs
    const elapsed = -Math.log(random()) / rate
    time += elapsed
    if (holding > busy) above += elapsed
    holding += random() * rate < holding / holdMs ? -1 : 1
  }
  return above / time
}

describe('how many connections are busy', () => {
  test.each([
    [63, 12, 15_000],
    [200, 40, 1_000],
    [50, 500, 500],
    [10, 900, 100],
  ])('%i slots that hold %i ms and wait %i ms: as simulated', (concurrency, holdMs, callMs) => {
    const { application } = adviseConnections({ concurrency, holdMs, callMs, engineHoldMs: 0 })
    expect(shareAbove(application.p99, concurrency, holdMs, callMs)).toBeLessThanOrEqual(0.0105)
    expect(shareAbove(application.p99 - 1, concurrency, holdMs, callMs)).toBeGreaterThan(0.0095)
    expect(shareAbove(application.p50, concurrency, holdMs, callMs)).toBeLessThanOrEqual(0.52)
  })

  test('in the mean it is what arrives times what it holds (Little)', () => {
    const { application, jobsPerSecond } = adviseConnections({ ...CAMERAS, arrivalsPerSecond: 2 })
    expect(jobsPerSecond).toBe(2)
    expect(application.mean).toBeCloseTo(0.024)
  })

  test('is none of jobs that take no time', () => {
    const { application, engine } = adviseConnections({
      concurrency: 5,
      holdMs: 0,
      callMs: 0,
      engineHoldMs: 0,
    })
    expect([application, engine]).toEqual(Array(2).fill({ mean: 0, p50: 0, p99: 0 }))
  })

  test('is never above the slots, and never less for more processes', () => {
    fc.assert(
      fc.property(LOADS, (load) => {
        const { application, engine, together, ifHeldDuringCall } = adviseConnections(load)
        for (const busy of [application, engine, ifHeldDuringCall]) {
          expect(busy.p50).toBeLessThanOrEqual(busy.p99)
          expect(busy.p99).toBeLessThanOrEqual(load.concurrency)
          expect(busy.mean).toBeLessThanOrEqual(load.concurrency * (1 + 1e-9))
        }
        expect(application.p99).toBeLessThanOrEqual(ifHeldDuringCall.p99)
        // Quantiles do not add up (15 processes with one busy for 0.98 % of the time each have two busy for 1 % of it).
        expect(together.p99).toBeGreaterThanOrEqual(application.p99)
        expect(together.mean / (load.processes ?? 1) / application.mean).toBeCloseTo(1, 9)
      }),
    )
  })

  test('grows with the slots while there is always enough to do', () => {
    fc.assert(
      fc.property(LOADS, ({ arrivalsPerSecond: _, ...load }) => {
        const once = adviseConnections(load)
        const twice = adviseConnections({ ...load, concurrency: load.concurrency * 2 })
        expect(twice.application.p99).toBeGreaterThanOrEqual(once.application.p99)
        expect(twice.application.mean).toBeGreaterThan(once.application.mean)
        expect(twice.jobsPerSecond).toBeGreaterThan(once.jobsPerSecond)
      }),
    )
  })

  test('what arrives is what is done, up to what the slots can take', () => {
    fc.assert(
      fc.property(LOADS, ({ arrivalsPerSecond = 1, ...load }) => {
        const most = adviseConnections(load).jobsPerSecond
        const { jobsPerSecond } = adviseConnections({ ...load, arrivalsPerSecond })
        expect(jobsPerSecond).toBe(Math.min(arrivalsPerSecond, most))
      }),
    )
  })
})

describe('what to set', () => {
  test('a pool that the load fits in works, and says what holding through the call would need', () => {
    const { works, pools, ifHeldDuringCall, advice } = adviseConnections(CAMERAS, {
      applicationPool: pools63(),
      enginePool: 2,
    })
    expect(works).toBe(true)
    expect(pools).toEqual({ application: 2, engine: 2 })
    expect(ifHeldDuringCall.p99).toBe(63)
    expect(advice).toHaveLength(1)
    expect(advice[0]).toMatch(/^63 jobs at a time hold 0 connections half of the time and at most 1 /)
  })

  test('a pool that is far larger than needed is said to be', () => {
    const { works, advice } = adviseConnections(CAMERAS, { applicationPool: 63 })
    expect(works).toBe(true)
    expect(advice.at(-1)).toMatch(/larger than jobs need.*2 would do/)
  })

  test.each([
    [
      'a pool that is busy all the time',
      { concurrency: 50, callMs: 100, holdMs: 100 },
      { applicationPool: 10 },
      /busy all the time.*24\.8 connections.*Set it to/,
    ],
    [
      'a burst that waits longer than acquireTimeout',
      { concurrency: 1_000, callMs: 600_000, holdMs: 100 },
      { applicationPool: 1, acquireTimeoutMs: 5_000 },
      /all 1000 slots ask at once, the last waits 50000 ms/,
    ],
    [
      'more connections than the server has',
      { concurrency: 63, processes: 25, callMs: 15_000, holdMs: 12 },
      { applicationPool: 10, enginePool: 6, maxConnections: 100 },
      /25 processes may open 400 connections.*Put a transaction-mode pooler/,
    ],
    [
      'more connections than the server has, where smaller pools help',
      { concurrency: 63, processes: 8, callMs: 15_000, holdMs: 12 },
      { applicationPool: 10, enginePool: 6, maxConnections: 100 },
      /8 processes may open 128 connections.*With pools of 2 and 2 it is 32/,
    ],
    [
      "a pooler's pool that is too small",
      { concurrency: 200, processes: 4, callMs: 1_000, holdMs: 20 },
      { poolerPool: 3 },
      /pooler's 3 server connections are busy all the time.*Set default_pool_size to/,
    ],
  ])('%s is a problem, with what helps', (_what, load, limits, message) => {
    const { works, advice } = adviseConnections(load, limits)
    expect(works).toBe(false)
    expect(advice[1]).toMatch(message)
  })

  test('pools of the size that it advises always work', () => {
    fc.assert(
      fc.property(LOADS, (load) => {
        const { pools } = adviseConnections(load)
        const limits = { applicationPool: pools.application, enginePool: pools.engine }
        expect(adviseConnections(load, limits).advice.slice(1)).toEqual([])
      }),
    )
  })
})

test('figures that cannot be are refused, each by its name', () => {
  const load = { concurrency: 0, callMs: -1, holdMs: Number.NaN }
  const act = () => adviseConnections(load, { applicationPool: 1.5, maxConnections: 100 })
  expect(act).toThrow(TriphaseError)
  for (const name of ['concurrency', 'callMs', 'holdMs', 'applicationPool']) expect(act).toThrow(`${name}: `)
  expect(act).not.toThrow('maxConnections: ')
})

function pools63(): number {
  return adviseConnections(CAMERAS).pools.application
}

describe('a load that was observed', () => {
  const model = { queue: 'model', claims: 10, durationMs: 100_200, checkouts: 20, waitMs: 100, holdMs: 100 }
  const quick = {
    queue: 'quick',
    claims: 1_000,
    durationMs: 10_000,
    checkouts: 1_000,
    waitMs: 0,
    holdMs: 10_000,
  }

  test('is what one queue does in the mean, without the waits', () => {
    expect(observedLoad([model], { model: 12 })).toEqual({
      concurrency: 12,
      callMs: expect.closeTo(10_000, 5),
      holdMs: expect.closeTo(10, 5),
      checkouts: expect.closeTo(2, 5),
    })
  })

  test('of several queues keeps as many connections busy as these together', () => {
    const load = observedLoad([model, quick], { model: 12, quick: 3, unknown: 50 })!
    expect(load.concurrency).toBe(15)
    const busy = (tasks: (typeof model)[], slots: Record<string, number>) =>
      adviseConnections({ ...observedLoad(tasks, slots)!, engineHoldMs: 0 }).application.mean
    const together = adviseConnections({ ...load, engineHoldMs: 0 }).application.mean
    expect(together).toBeCloseTo(busy([model], { model: 12 }) + busy([quick], { quick: 3 }), 5)
  })

  test('sums the tasks of a queue, and is nothing where none of the queues is known', () => {
    const halves = [model, { ...model, claims: 30, durationMs: 300_600 }]
    expect(observedLoad(halves, { model: 1 })).toMatchObject({ holdMs: expect.closeTo(5, 5) })
    expect(observedLoad([model], { quick: 3 })).toBeNull()
    expect(observedLoad([], {})).toBeNull()
  })
})
