import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { PageReader } from '../../src/sweeps/page-reader.ts'

const reads: [string | null, number][] = []

/** Records a, b, c, …, of which those that were deleted are not found again. */
function reader(keys: string, deleted = new Set<string>()): PageReader {
  const all = [...keys].map((key) => ({ key, place: key, row: {} }))
  return new PageReader(
    async (after, limit) => {
      reads.push([after, limit])
      return all.filter(({ key }) => (after === null || key > after) && !deleted.has(key)).slice(0, limit)
    },
    null,
    3,
  )
}

beforeEach(() => {
  reads.length = 0
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

test('records are read in portions, up to the end of the page', async () => {
  const page = reader('abcd')
  await page.readOn(1, () => true)
  expect([page.size, page.ended, page.needs(3), page.needs(4)]).toEqual([3, false, false, true])
  expect([page.next()?.key, page.next()?.key]).toEqual(['a', 'b'])
  await page.readOn(1, () => true)
  expect([page.size, page.ended, page.needs(9)]).toEqual([2, true, false])
  expect(reads).toEqual([
    [null, 3],
    ['c', 3],
  ])
})

test('what has been at hand for long is read again, from where it began', async () => {
  const deleted = new Set<string>()
  const page = reader('abc', deleted)
  await page.readOn(1, () => true)
  expect(page.next()?.key).toBe('a')
  vi.advanceTimersByTime(20_000)
  deleted.add('b')
  expect(page.next()).toBeUndefined()
  expect(page.needs(1)).toBe(true)
  await page.readOn(1, () => true)
  expect(page.next()?.key).toBe('c')
  expect(reads.at(-1)).toEqual(['a', 3])
})
