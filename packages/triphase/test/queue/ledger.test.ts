import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { ClaimLedger } from '../../src/queue/ledger.ts'

beforeEach(() => vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => vi.useRealTimers())

const pass = (ms: number) => vi.advanceTimersByTime(ms)

test('checkouts, waits and holds are summed, in all and by phase', () => {
  const ledger = new ClaimLedger()
  ledger.enterPhase('prepare')
  const prepared = ledger.checkedOut(5)
  pass(10)
  prepared()
  ledger.enterPhase('call')
  pass(1_000)
  const asked = ledger.checkedOut(1)
  pass(2)
  asked()
  ledger.enterPhase('commit')
  const committed = ledger.checkedOut(0)
  pass(30)
  committed()
  ledger.enterPhase(undefined)
  pass(500)
  expect(ledger.read()).toEqual({
    checkouts: 3,
    waitMs: 6,
    holdMs: 42,
    longestHoldMs: 30,
    phases: {
      prepare: { durationMs: 10, checkouts: 1, waitMs: 5, holdMs: 10, longestHoldMs: 10 },
      call: { durationMs: 1_002, checkouts: 1, waitMs: 1, holdMs: 2, longestHoldMs: 2 },
      commit: { durationMs: 30, checkouts: 1, waitMs: 0, holdMs: 30, longestHoldMs: 30 },
    },
  })
})

test('what is still going on counts up to now, and once only', () => {
  const ledger = new ClaimLedger()
  ledger.enterPhase('commit')
  const giveBack = ledger.checkedOut(0)
  pass(10)
  const expected = {
    checkouts: 1,
    waitMs: 0,
    holdMs: 10,
    longestHoldMs: 10,
    phases: { commit: { durationMs: 10, checkouts: 1, waitMs: 0, holdMs: 10, longestHoldMs: 10 } },
  }
  expect(ledger.read()).toEqual(expected)
  expect(ledger.read()).toEqual(expected)
  giveBack()
  giveBack()
  ledger.enterPhase(undefined)
  pass(10)
  expect(ledger.read()).toEqual(expected)
})

test('a connection that is held into the next phase belongs to the phase in which it was asked for', () => {
  const ledger = new ClaimLedger()
  ledger.enterPhase('prepare')
  const giveBack = ledger.checkedOut(0)
  ledger.enterPhase('call')
  pass(10)
  giveBack()
  expect(ledger.read().phases).toMatchObject({ prepare: { holdMs: 10 }, call: { checkouts: 0, holdMs: 0 } })
})

test('a phase that is entered twice is summed, and connections outside of phases count in all', () => {
  const ledger = new ClaimLedger()
  for (const phase of ['prepare', 'call', 'prepare', undefined]) {
    ledger.enterPhase(phase)
    pass(3)
  }
  ledger.checkedOut(2)()
  expect(ledger.phase).toBeUndefined()
  expect(ledger.read()).toMatchObject({
    checkouts: 1,
    waitMs: 2,
    phases: { prepare: { durationMs: 6 }, call: { durationMs: 3 } },
  })
})
