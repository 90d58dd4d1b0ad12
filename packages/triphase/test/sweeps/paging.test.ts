import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RecordTable } from '../../src/sweeps/record-table.ts'
import { testUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()
const pool = new pg.Pool({ connectionString: testUrl(), max: 2 })
let collations: string[] = []

beforeAll(async () => {
  const { rows } = await pool.query(
    `SELECT quote_ident(collname) AS name FROM pg_collation
     WHERE collname IN ('C', 'en-x-icu', 'sv-x-icu', 'und-x-icu', 'en_US.utf8') AND collencoding IN (-1, 6)`,
  )
  collations = rows.map(({ name }) => name)
})
afterAll(() => pool.end())

const texts = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 6 }),
  fc.constantFrom(
    'a',
    'A',
    'ä',
    'Ä',
    'b',
    '',
    ' ',
    '"',
    "'",
    '\\',
    'a b',
    'a-b',
    'ab',
    'ß',
    'ss',
    'é',
    'e\u0301',
    '~',
    'Z',
    'null',
  ),
)
const rowsOf = fc.uniqueArray(
  fc.record({
    n: fc.bigInt({ min: -5n, max: 9_007_199_254_740_993n }),
    t: texts.filter((text) => !text.includes('\u0000')),
    u: fc.uuid(),
    pending: fc.boolean(),
  }),
  { selector: ({ n, t }) => `${n} ${t}`, maxLength: 40 },
)

test('pages hold every pending record once, whatever its key and its order are made of', async () => {
  expect(collations.length).toBeGreaterThan(1)
  const application = {
    query: (text: string, values: readonly unknown[] = []) => pool.query(text, values as unknown[]),
    schema: bench.schema.schema,
    text: (sql: string) => bench.schema.database.text(sql),
  }
  await fc.assert(
    fc.asyncProperty(
      rowsOf,
      fc.integer({ min: 1, max: 7 }),
      fc.integer({ min: 1, max: 3 }),
      fc.constantFrom(['n', 't'], ['t', 'n'], ['t', 'n', 'u'], ['u', 't', 'n']),
      fc.constantFrom<string[]>([], ['u'], ['t'], ['n', 'at'], ['at']),
      fc.boolean(),
      fc.nat(),
      async (rows, pageSize, ahead, key, order, descending, pick) => {
        const places = [...new Set([...order, ...key])]
        const collation = collations[pick % collations.length]
        await pool.query(`
          DROP TABLE IF EXISTS sweep_paging_records;
          CREATE TABLE sweep_paging_records (
            n bigint NOT NULL, t text COLLATE ${collation} NOT NULL, u uuid NOT NULL, at timestamptz NOT NULL,
            PRIMARY KEY (n, t),
            status text NOT NULL DEFAULT 'pending', result text, error_message text);
          CREATE INDEX ON sweep_paging_records (status);
          CREATE INDEX ON sweep_paging_records (${places.join(', ')}) WHERE status = 'pending'`)
        for (const { n, t, u, pending } of rows) {
          const status = pending ? 'pending' : 'done'
          // Few moments, microseconds apart, so that many rows share one.
          await pool.query(
            `INSERT INTO sweep_paging_records
             VALUES ($1::bigint, $2, $3, timestamptz '2026-01-01' + abs($1::bigint % 3) * interval '1 microsecond', $4)`,
            [n, t, u, status],
          )
        }
        const names = {
          schema: undefined,
          table: 'sweep_paging_records',
          key,
          status: 'status',
          result: 'result',
        }
        const table = new RecordTable({
          ...names,
          error: 'error_message',
          where: undefined,
          order,
          descending,
        })
        const seen: string[] = []
        let cursor: string | null = null
        while (true) {
          const ends: string[] = await table.boundaries(application, cursor, ahead, pageSize)
          for (const end of ends) {
            const found = await table.pending(application, { after: cursor, upTo: end }, pageSize + 1)
            expect(found.length).toBeLessThanOrEqual(pageSize)
            seen.push(...found.map(({ row }) => `${row.n} ${row.t}`))
            cursor = end
          }
          if (ends.length < ahead) break
        }
        const inOrder = places.map((name) => `${name} ${descending ? 'DESC' : 'ASC'}`).join(', ')
        const all = await pool.query(
          `SELECT n, t FROM sweep_paging_records WHERE status = 'pending' ORDER BY ${inOrder}`,
        )
        expect(seen).toEqual(all.rows.map(({ n, t }) => `${n} ${t}`))

        const marks = (await table.pending(application, { after: null, upTo: null }, 100)).map((record) => ({
          key: record.key,
          result: 'x',
          error: null,
        }))
        const marked = await table.mark(application, marks, null)
        expect(marked.filter(Boolean)).toHaveLength(all.rows.length)
        expect((await table.mark(application, marks, null)).filter(Boolean)).toEqual([])
      },
    ),
    { numRuns: 60 },
  )
})
