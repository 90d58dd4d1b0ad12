import { parse } from 'csv-parse/sync'
import { stringify } from 'csv-stringify/sync'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { defineFileSweep, exportFile, FileFaults, loadFile } from '../src/index.ts'
import { useFiles } from './support/file-bench.ts'

const files = useFiles()
const RUNS = { numRuns: 60 }

const sweep = defineFileSweep({ name: 'trip', table: files.table('trip'), each: async () => null })

/** Texts with whatever separates, quotes and ends things. */
const cell = fc.oneof(
  fc.string({ unit: 'binary' }).map((text) => text.toWellFormed()),
  fc.string({
    unit: fc.constantFrom(
      '"',
      ',',
      ';',
      '\t',
      '\n',
      '\r',
      '\\',
      ' ',
      'N',
      '.',
      '{',
      '\u0000',
      '\ufeff',
      '😀',
    ),
  }),
)
const name = fc.stringMatching(/^[a-z,;"\n 0-9]{1,8}$/).filter((text) => text.trim() !== '')

const sheet = fc
  .record({
    columns: fc.uniqueArray(name, { minLength: 1, maxLength: 5 }),
    delimiter: fc.constantFrom(',', ';', '\t'),
    record_delimiter: fc.constantFrom('\n', '\r\n'),
    bom: fc.boolean(),
    quoted: fc.boolean(),
  })
  .chain((form) => {
    const row = fc
      .array(cell, { minLength: form.columns.length, maxLength: form.columns.length })
      // A row of one empty cell is an empty line.
      .filter((cells) => cells.join('') !== '')
    return fc.record({ form: fc.constant(form), rows: fc.array(row, { maxLength: 12 }) })
  })

test('whatever is in the cells of a CSV file comes back', async () => {
  const { engine, pool } = files
  await fc.assert(
    fc.asyncProperty(sheet, async ({ form: { columns, delimiter, ...form }, rows }) => {
      const options = { delimiter, ...form, quoted_match: /[\r\n]/ }
      const file = await files.write('trip.csv', stringify([columns, ...rows], options))
      await loadFile({ engine, pool }, sweep, file, { replace: true, delimiter })
      await exportFile({ pool }, sweep, files.path('trip.out.csv'))
      const out = parse(await files.read('trip.out.csv'), {
        delimiter,
        bom: form.bom,
        record_delimiter: ['\r\n', '\n'],
      })
      expect(out.map((cells: string[]) => cells.slice(0, columns.length))).toEqual([columns, ...rows])
      expect(out.slice(1).map((cells: string[]) => cells[columns.length])).toEqual(rows.map(() => 'pending'))
    }),
    RUNS,
  )
})

test('whatever is in the lines of a JSONL file comes back', async () => {
  const { engine, pool } = files
  const record = fc.dictionary(
    fc.string({ unit: 'binary' }).filter((key) => key !== '__proto__'),
    fc.jsonValue(),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(record, { maxLength: 12 }), async (records) => {
      const text = records.map((one) => `${JSON.stringify(one)}\n`).join('')
      await loadFile({ engine, pool }, sweep, await files.write('trip.jsonl', text), { replace: true })
      await exportFile({ pool }, sweep, files.path('trip.out.jsonl'))
      const lines = (await files.read('trip.out.jsonl')).split('\n').slice(0, -1)
      expect(
        lines.map((line) =>
          Object.entries(JSON.parse(line)).filter(([key]) => !/^(status|result|error)(_\d+)?$/.test(key)),
        ),
      ).toEqual(
        records.map((one) =>
          Object.entries(JSON.parse(JSON.stringify(one))).filter(
            ([key]) => !/^(status|result|error)(_\d+)?$/.test(key),
          ),
        ),
      )
    }),
    RUNS,
  )
})

test('the number of a fault is the number of its line, whatever stands before it', async () => {
  const { engine, pool } = files
  const block = fc.constantFrom(
    '1,a\n',
    '1,a\r\n',
    '\n',
    '\r\n',
    '1,"a\nb"\r\n',
    '1,"a\r\nb"\n',
    '1,"a\rb"\n',
    '"",😀\n',
  )
  const strict = defineFileSweep({
    name: 'strict',
    table: files.table('strict'),
    line: z.object({ a: z.string(), b: z.string().refine((text) => text !== 'BAD', 'bad') }),
    each: async () => null,
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(block, { maxLength: 30 }),
      fc.array(block, { maxLength: 5 }),
      async (before, after) => {
        const text = `a,b\n${before.join('')}2,BAD\n${after.join('')}`
        const file = await files.write('strict.csv', text)
        const error = await loadFile({ engine, pool }, strict, file).catch((thrown) => thrown)
        expect(error).toBeInstanceOf(FileFaults)
        const line = text.slice(0, text.indexOf('2,BAD')).split(/\r\n|\n|\r/).length
        expect(error.faults).toEqual([{ line, message: 'b: bad' }])
      },
    ),
    { numRuns: 150 },
  )
})
