import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { readTable } from './table.ts'

const tested = globSync('*.test.ts', { cwd: import.meta.dirname }).flatMap((file) => {
  const text = readFileSync(`${import.meta.dirname}/${file}`, 'utf8')
  return [...text.matchAll(/\bscene\.(?:row|calls)\(\s*'([^']+)'/g)].map(([, id]) => id!)
})

test('each row of the tables in the docs has one test, and each test a row', () => {
  const documented = readTable().map(({ id }) => id)
  expect(tested.toSorted()).toEqual(documented.toSorted())
  expect(new Set(documented).size).toBe(documented.length)
})
