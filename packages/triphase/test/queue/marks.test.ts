import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Marks } from '../../src/queue/marks.ts'

const receipt = (position: number, oldestOpen: number, horizon: number, priority = 2, bottom = position) => ({
  tops: new Map([[priority, position]]),
  bottoms: new Map([[priority, bottom]]),
  oldestOpen,
  horizon,
})

describe('marks', () => {
  test('stand at the start until the transactions that a claim could not see have ended', () => {
    const marks = new Marks()
    marks.next(0)
    marks.learn(receipt(100, 7, 10))
    marks.learn(receipt(200, 9, 12))
    expect(marks.next(1)).toEqual([0, 0, 0, 0])
    marks.learn(receipt(300, 10, 14))
    expect(marks.next(1)).toEqual([0, 0, 100, 0])
    marks.learn(receipt(400, 14, 15))
    expect(marks.next(1)).toEqual([0, 0, 300, 0])
  })

  test('are kept for each priority by itself', () => {
    const marks = new Marks()
    marks.next(0)
    marks.learn(receipt(100, 1, 2, 0))
    marks.learn(receipt(50, 2, 3, 3))
    marks.learn(receipt(110, 3, 4, 0))
    expect(marks.next(1)).toEqual([100, 0, 0, 0])
  })

  test('give way to a walk from the start every 30 s', () => {
    const marks = new Marks()
    marks.next(0)
    marks.learn(receipt(100, 1, 2))
    marks.learn(receipt(200, 2, 3))
    expect(marks.next(29_999)).toEqual([0, 0, 100, 0])
    expect(marks.next(30_000)).toEqual([0, 0, 0, 0])
    expect(marks.next(30_001)).toEqual([0, 0, 100, 0])
  })

  test('are learned anew where a walk finds a job below one: positions have begun again', () => {
    const marks = new Marks()
    marks.next(0)
    marks.learn(receipt(100, 1, 10, 0))
    marks.learn(receipt(100, 1, 10))
    marks.learn(receipt(200, 20, 30, 0))
    marks.learn(receipt(200, 20, 30))
    expect(marks.next(1)).toEqual([100, 0, 100, 0])
    marks.learn(receipt(250, 20, 31, 2, 7))
    expect(marks.next(2)).toEqual([100, 0, 0, 0])
    marks.learn(receipt(260, 31, 32))
    expect(marks.next(3)).toEqual([100, 0, 250, 0])
    marks.forget()
    expect(marks.next(4)).toEqual([0, 0, 0, 0])
  })

  test('are learned in no time after a transaction that was open for a million claims', () => {
    const marks = new Marks()
    marks.next(0)
    for (let claim = 1; claim <= 1_000_000; claim++) marks.learn(receipt(claim, 1, claim + 1))
    expect(marks.next(1)).toEqual([0, 0, 0, 0])
    marks.learn(receipt(1_000_001, 1_000_001, 1_000_002))
    expect(marks.next(1)).toEqual([0, 0, 1_000_000, 0])
  })

  test('never pass a job whose transaction was open when a later one was claimed', () => {
    fc.assert(fc.property(fc.array(fc.nat(3), { minLength: 1, maxLength: 200 }), neverPasses), {
      numRuns: 500,
    })
  })
})

/**
 * Transactions begin (0), draw a position (1), commit (2); a claimer claims everything visible (3). Each draws at most
 * one position after it has got its number, as an INSERT does.
 */
function neverPasses(steps: readonly number[]): void {
  const open: { number: number; position: number | null }[] = []
  const available = new Set<number>()
  const marks = new Marks()
  marks.next(0)
  let number = 1
  let position = 1
  for (const step of steps) {
    if (step === 0) open.push({ number: number++, position: null })
    if (step === 1) {
      const drawer = open.find((transaction) => transaction.position === null)
      if (drawer) drawer.position = position++
    }
    if (step === 2) {
      const committed = open.splice(number % Math.max(1, open.length), 1)[0]
      if (committed?.position) available.add(committed.position)
    }
    if (step === 3) {
      const mark = marks.next(1)[2] as number
      for (const waiting of available) expect(waiting).toBeGreaterThan(mark)
      const top = Math.max(0, ...available)
      const oldestOpen = Math.min(number, ...open.map((transaction) => transaction.number))
      if (top > 0) marks.learn(receipt(top, oldestOpen, number))
      available.clear()
    }
  }
}
