import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, test } from 'vitest'
import { barLine, Rate, showProgress } from '../src/progress.ts'
import { inWords } from '../src/words.ts'

const counts = (completed: number, over = {}) => ({ total: 100, completed, failed: 0, known: 0, ...over })

function terminal(columns: number): { stream: NodeJS.WriteStream; written: Promise<string> } {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns })
  return { stream: stream as unknown as NodeJS.WriteStream, written: text(stream) }
}

describe('the rate', () => {
  test('is that of the last half minute, and tells the time left', () => {
    const rate = new Rate()
    expect(rate.update(counts(0), 0)).toEqual({ rate: null, secondsLeft: null })
    expect(rate.update(counts(20), 10_000)).toEqual({ rate: 2, secondsLeft: 40 })
    expect(rate.update(counts(21), 35_000)).toEqual({ rate: 0.04, secondsLeft: 79 / 0.04 })
    expect(rate.update(counts(21), 70_000)).toEqual({ rate: null, secondsLeft: null })
  })

  test('leaves out what was known before', () => {
    const rate = new Rate()
    rate.update(counts(0), 0)
    expect(rate.update(counts(60, { known: 50 }), 10_000)).toEqual({ rate: 1, secondsLeft: 40 })
  })

  test('tells no time when nothing is left', () => {
    const rate = new Rate()
    rate.update(counts(0), 0)
    expect(rate.update(counts(90, { failed: 10 }), 10_000)).toEqual({ rate: 10, secondsLeft: null })
  })
})

describe('the bar', () => {
  const now = { rate: 3.21, secondsLeft: 75 }

  test('has counts, failures, rate and time left', () => {
    expect(barLine(counts(40, { failed: 10 }), now, 100)).toBe(
      `${'█'.repeat(15)}${'░'.repeat(15)}  50/100  10 failed  3.2/s  1 min 15 s left`,
    )
  })

  test('fits into a narrow terminal: first the bar gets shorter, then it goes, then the words are cut', () => {
    expect(barLine(counts(50), now, 48)).toBe(
      `${'█'.repeat(7)}${'░'.repeat(8)}  50/100  3.2/s  1 min 15 s left`,
    )
    expect(barLine(counts(50), now, 36)).toBe('50/100  3.2/s  1 min 15 s left')
    expect(barLine(counts(50), now, 20)).toBe('50/100  3.2/s  1 m…')
  })

  test('is full when there was nothing to do, and with no image at all', () => {
    expect(barLine(counts(0, { total: 0 }), { rate: null, secondsLeft: null }, 80)).toBe(
      `${'█'.repeat(30)}  0/0`,
    )
  })

  test('is drawn over itself, below the lines that are said, and changes no state of the terminal', async () => {
    const { stream, written } = terminal(60)
    const progress = showProgress(stream)
    progress.say('begun')
    progress.update(counts(0))
    progress.update(counts(0))
    progress.say('a line')
    progress.update(counts(50))
    progress.stop()
    progress.say('the end')
    stream.end()
    const bar = (full: number, words: string) => `${'█'.repeat(full)}${'░'.repeat(30 - full)}  ${words}`
    expect(await written).toBe(
      `begun\n\r${bar(0, '0/100')}\u001b[K\r\u001b[Ka line\n${bar(0, '0/100')}` +
        `\r${bar(15, '50/100')}\u001b[K\nthe end\n`,
    )
  })
})

test('elsewhere than on a terminal there are plain lines, not too many, and the last one always', async () => {
  const stream = new PassThrough()
  const progress = showProgress(stream as unknown as NodeJS.WriteStream)
  for (let completed = 0; completed <= 100; completed++) progress.update(counts(completed))
  progress.update(counts(100))
  progress.stop()
  stream.end()
  expect(await text(stream)).toBe('100 of 100 images\n')
})

test.each([
  [0.2, '1 s'],
  [59.5, '1 min 0 s'],
  [3_599, '59 min 59 s'],
  [7_260, '2 h 1 min'],
])('%d seconds are %s', (seconds, words) => {
  expect(inWords(seconds)).toBe(words)
})
