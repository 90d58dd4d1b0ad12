import { randomBytes } from 'node:crypto'
import { appendFile, writeFile } from 'node:fs/promises'
import pg from 'pg'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { testUrl } from '../../triphase/test/support/database-url.ts'
import { columnsOf, defineFileSweep, FileFaults, isFileSweep, loadedFile, loadFile } from '../src/index.ts'
import { rowsOf, useFiles } from './support/file-bench.ts'

const files = useFiles()

function sweepOf(name: string, line?: z.ZodType) {
  return defineFileSweep({
    name,
    table: files.table(name),
    ...(line ? { line } : {}),
    each: async () => null,
  })
}

async function faultsOf(file: string, line?: z.ZodType): Promise<FileFaults> {
  const sweep = sweepOf('faulty', line)
  const error = await loadFile({ engine: files.engine, pool: files.pool }, sweep, file).catch(
    (thrown) => thrown,
  )
  expect(error).toBeInstanceOf(FileFaults)
  expect(await files.tables()).not.toContain('faulty')
  return error
}

async function loaded(
  name: string,
  file: string,
): Promise<{ line: number; record: unknown; status: string }[]> {
  const sweep = sweepOf(name)
  await loadFile({ engine: files.engine, pool: files.pool }, sweep, file)
  expect(await files.engine.sweep(sweep).check()).toEqual([])
  return rowsOf(files.pool, files.table(name))
}

test('the lines of a CSV file come into the table by the numbers that an editor shows', async () => {
  const file = await files.write(
    'numbers.csv',
    'id,text\r\n1,"two\r\nlines"\r\n\r\n\r\n2,"a ""quote"""\r\n3,end',
  )
  expect(await loaded('numbers', file)).toEqual([
    { line: 2, record: { id: '1', text: 'two\r\nlines' }, status: 'pending' },
    { line: 6, record: { id: '2', text: 'a "quote"' }, status: 'pending' },
    { line: 7, record: { id: '3', text: 'end' }, status: 'pending' },
  ])
})

test.for([
  ['semicolons.csv', 'id;text\n1;a,b\n', { id: '1', text: 'a,b' }],
  ['tabs.tsv', 'id\ttext\n1\ta,b;c\n', { id: '1', text: 'a,b;c' }],
  ['tabs-by-header.csv', 'id\ttext\n1\ta,b\n', { id: '1', text: 'a,b' }],
  ['mark.csv', '\ufeff"id";"a, b, c"\r\n1;x\r\n', { id: '1', 'a, b, c': 'x' }],
  ['returns.csv', 'id,text\r1,x\r', { id: '1', text: 'x' }],
  ['mixed-ends.csv', 'id,text\r\n1,x\n', { id: '1', text: 'x' }],
  ['zero.csv', 'id,text\n1,a\u0000b\n', { id: '1', text: 'a\u0000b' }],
  ['backslash.csv', 'id,text\n\\.,\\N\\t\n', { id: '\\.', text: '\\N\\t' }],
  ['one.csv', 'id\n1\n', { id: '1' }],
  ['zero.jsonl', '{"a":"\\u0000","b":[1,{"c":"\\\\"}]}\n', { a: '\u0000', b: [1, { c: '\\' }] }],
  ['blanks.ndjson', '\ufeff \r\n\t{\t"a" : 1\t}\r\n\r\n', { a: 1 }],
] as const)('%s is read as it is meant', async ([name, content, record], _) => {
  const rows = await loaded(name.replaceAll(/\W/g, '_'), await files.write(name, content))
  expect(rows.map((row) => row.record)).toEqual([record])
})

test('faults are told with the numbers of their lines, and nothing is loaded', async () => {
  const file = await files.write('faults.csv', 'id,text\n1,a\n2\n"3\n",b,c\n4,\n5,e\n')
  const error = await faultsOf(file, z.object({ id: z.string(), text: z.string().min(1, 'is empty') }))
  expect(error.code).toBe('FILE_FAULTS')
  expect(error.faults).toEqual([
    { line: 3, message: 'it has 1 field, the header row 2' },
    { line: 4, message: 'it has 3 fields, the header row 2' },
    { line: 6, message: 'text: is empty' },
  ])
  expect(error).toMatchObject({ count: 3, stoppedAt: null })
  expect(error.message).toContain('line 3: it has 1 field, the header row 2; line 4: it has 3 fields')
})

test.for([
  ['empty.csv', '', 1, /no header row/],
  ['twice.csv', 'a,b,a\n', 1, /more than one "a"/],
  ['unnamed.csv', 'a,,\n', 1, /no name for column 2, 3/],
  ['opened.csv', 'a,b\n1,2\n3,"4\n5,6\n', 3, /never closed/],
  ['inside.csv', 'a,b\n1,2\n\n3,4" wide\n5,6\n', 4, /middle of a field/],
  ['behind.csv', 'a,b\n"1"x,2\n', 2, /after a quoted field/],
  ['latin.csv', Buffer.from('a,b\n1,2\n3,caf\xe9\n', 'latin1'), 3, /not UTF-8/],
  ['wide.csv', Buffer.from('\ufeffa,b\n', 'utf16le'), 1, /UTF-16/],
  ['cut.csv', Buffer.concat([Buffer.from('a\n1\n'), Buffer.from('é').subarray(0, 1)]), 3, /not UTF-8/],
  ['long.csv', `a\n1\n${'x'.repeat(1_100_000)}\n`, 3, /longer than 1048576 bytes/],
  ['array.jsonl', '{}\n[1]\n', 2, /an array, not an object/],
  ['null.jsonl', 'null\n', 1, /null, not an object/],
  ['text.jsonl', '{"a":1}\n\n{"a":1\n', 3, /not JSON/],
  ['long.jsonl', `{"a":1}\n{"a":"${'x'.repeat(1_100_000)}"}\n`, 2, /longer than 1048576 bytes/],
] as const)('%s is refused', async ([name, content, line, message]) => {
  const [fault] = (await faultsOf(await files.write(name, content as string))).faults
  expect(fault?.message).toMatch(message)
  expect(fault?.line).toBe(line)
})

test('of many faults the first hundred are kept, and all are counted', async () => {
  const error = await faultsOf(await files.write('many.jsonl', 'x\n'.repeat(250)))
  expect(error.faults.map(({ line }) => line)).toEqual(Array.from({ length: 100 }, (_, index) => index + 1))
  expect(error.count).toBe(250)
  expect(error.message).toContain('line 10: ')
  expect(error.message).not.toContain('line 11: ')
  expect(error.message).toContain('and 240 more')
})

test.for([
  ['missing.csv', 'FILE_UNREADABLE', /does not exist/],
  ['.', 'INVALID_OPTIONS', /give its format/],
  ['folder.csv/..', 'INVALID_OPTIONS', /give its format/],
] as const)('%s: %s', async ([name, code, message]) => {
  const parts = { engine: files.engine, pool: files.pool }
  const loading = loadFile(parts, sweepOf('nothing'), files.path(name))
  await expect(loading).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
})

test('the same file again changes nothing; another one is refused, and replaces it when asked to', async () => {
  const sweep = sweepOf('again')
  const parts = { engine: files.engine, pool: files.pool }
  expect(await loadedFile(parts, sweep)).toBeNull()
  const file = await files.write('again.csv', 'id\n1\n2\n')
  const first = await loadFile(parts, sweep, file)
  expect(first).toMatchObject({ loaded: true, name: 'again.csv', lines: 2, columns: ['id'] })
  await files.pool.query(`UPDATE ${files.table('again')} SET status = 'done', result = '"x"' WHERE line = 2`)
  expect(await loadFile(parts, sweep, file)).toEqual({ ...first, loaded: false })
  await appendFile(file, '3\n')
  await expect(loadFile(parts, sweep, file)).rejects.toMatchObject({
    code: 'FILE_LOADED',
    message: expect.stringContaining('again.csv, 2 lines (1 pending, 1 done, 0 errors)'),
  })
  const { loaded: _, ...known } = first
  expect(await loadedFile(parts, sweep)).toEqual(known)
  expect(await loadFile(parts, sweep, file, { replace: true })).toMatchObject({ loaded: true, lines: 3 })
  expect((await rowsOf(files.pool, files.table('again'))).map(({ status }) => status)).toEqual(
    Array(3).fill('pending'),
  )
  expect(await files.engine.sweep(sweep).check()).toEqual([])
})

test('a table that somebody else made is left alone', async () => {
  await files.pool.query(`CREATE TABLE ${files.table('theirs')} (id int)`)
  const file = await files.write('theirs.csv', 'id\n1\n')
  const loading = loadFile({ engine: files.engine, pool: files.pool }, sweepOf('theirs'), file, {
    replace: true,
  })
  await expect(loading).rejects.toMatchObject({ code: 'SWEEP_TABLE' })
})

test('a file is not replaced while a run is open', async () => {
  const sweep = sweepOf('busy')
  const { engine } = files
  const parts = { engine, pool: files.pool }
  const file = await files.write('busy.csv', 'id\n1\n')
  await loadFile(parts, sweep, file)
  await engine.sweep(sweep).run()
  await expect(loadFile(parts, sweep, file, { replace: true })).rejects.toMatchObject({ code: 'SWEEP_OPEN' })
  expect(await files.tables()).toContain('busy')
  await engine.sweep(sweep).cancel()
  expect(await loadFile(parts, sweep, file, { replace: true })).toMatchObject({ loaded: true })
})

test('a run that begins while another file is copied keeps its own', async () => {
  const sweep = sweepOf('overtaken')
  const { engine } = files
  const parts = { engine, pool: files.pool }
  await loadFile(parts, sweep, await files.write('before.csv', 'id\nold\n'))
  // Connected, so that the run begins long before the copy ends.
  await engine.sweep(sweep).check()
  let begun: Promise<unknown> | undefined
  const replacing = loadFile(
    parts,
    sweep,
    await files.write('behind.csv', `id\n${'new\n'.repeat(200_000)}`),
    {
      replace: true,
      onProgress: ({ step }) => {
        if (step === 'loading') begun ??= engine.sweep(sweep).run()
      },
    },
  )
  await expect(replacing).rejects.toMatchObject({ code: 'SWEEP_OPEN' })
  expect(await begun).toMatchObject({ created: true })
  expect(await rowsOf(files.pool, files.table('overtaken'))).toMatchObject([{ record: { id: 'old' } }])
})

test('a mark for the file before finds no line of the one that has replaced it', async () => {
  const held = Promise.withResolvers<void>()
  const begun = Promise.withResolvers<void>()
  const sweep = defineFileSweep({
    name: 'late',
    table: files.table('late'),
    each: async ({ id }) => {
      if (id !== 'old') return 'new'
      begun.resolve()
      await held.promise
      return 'old'
    },
  })
  const engine = await files.start(sweep)
  const parts = { engine, pool: files.pool }
  await loadFile(parts, sweep, await files.write('old.csv', 'id\nold\n'))
  await engine.sweep(sweep).run()
  await begun.promise
  await engine.sweep(sweep).cancel()
  await loadFile(parts, sweep, await files.write('new.csv', 'id\nnew\n'), { replace: true })
  held.resolve()
  await engine.sweep(sweep).run()
  expect(await engine.sweep(sweep).settled()).toMatchObject({ state: 'completed', done: 1 })
  const { rows } = await files.pool.query(`SELECT result FROM ${files.table('late')}`)
  expect(rows).toEqual([{ result: 'new' }])
})

test('a file that changes between its two readings is not loaded', async () => {
  const file = await files.write('changing.csv', 'id\n1\n')
  const loading = loadFile({ engine: files.engine, pool: files.pool }, sweepOf('changing'), file, {
    onProgress: ({ step }) => {
      if (step === 'checking') void writeFile(file, 'id\n2\n')
    },
  })
  await expect(loading).rejects.toMatchObject({ code: 'FILE_CHANGED' })
  expect(await files.tables()).not.toContain('changing')
})

test('a load that is aborted in the middle leaves nothing, and neither does one whose connection ends', async () => {
  const file = await files.write('long.csv', `id\n${'1234567890\n'.repeat(100_000)}`)
  const stop = new AbortController()
  const parts = { engine: files.engine, pool: files.pool }
  const aborted = loadFile(parts, sweepOf('stopped'), file, {
    signal: stop.signal,
    onProgress: ({ step, bytes }) => {
      if (step === 'loading' && bytes > 500_000) stop.abort(new Error('enough'))
    },
  })
  await expect(aborted).rejects.toThrow('enough')
  let cut = false
  const ended = loadFile(parts, sweepOf('stopped'), file, {
    onProgress: ({ step, bytes }) => {
      if (step !== 'loading' || bytes < 300_000 || cut) return
      cut = true
      void files.pool.query(
        `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%stopped_load_1%' AND pid <> pg_backend_pid()`,
      )
    },
  })
  await expect(ended).rejects.toMatchObject({ code: 'CONNECTION_FAILED' })
  expect((await files.tables()).filter((name) => name.startsWith('stopped'))).toEqual([])
  expect(await loadFile(parts, sweepOf('stopped'), file)).toMatchObject({ loaded: true, lines: 100_000 })
})

test('what the server refuses in the middle is told as it is, and leaves nothing', async () => {
  const database = `full_${randomBytes(5).toString('hex')}`
  await files.pool.query(`CREATE DATABASE ${database}`)
  const url = new URL(testUrl())
  url.pathname = database
  const full = new pg.Pool({ connectionString: url.href, max: 1 })
  try {
    // A disk that is full after 5,000 lines, for every table that is made.
    await full.query(`
      CREATE FUNCTION extend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.line > 5000 THEN RAISE disk_full USING MESSAGE = 'could not extend file "base/1/2": No space left on device'; END IF;
        RETURN NEW;
      END $$;
      CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$
      DECLARE made record; BEGIN
        FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE' LOOP
          EXECUTE format('CREATE TRIGGER extend BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION extend()', made.object_identity);
        END LOOP;
      END $$;
      CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION watch()`)
    const sweep = defineFileSweep({ name: 'full', each: async () => null })
    const file = await files.write('full.jsonl', `{"text":"${'x'.repeat(500)}"}\n`.repeat(50_000))
    const loading = loadFile({ engine: files.engine, pool: full }, sweep, file)
    await expect(loading).rejects.toMatchObject({
      code: 'DISK_FULL',
      message: expect.stringMatching(/could not extend file .*Free space on it/),
    })
    const { rows } = await full.query(`SELECT 1 FROM pg_class WHERE relname LIKE 'full_lines%'`)
    expect(rows).toEqual([])
  } finally {
    await full.end()
    // Without FORCE it waits for a backend that is still ending: one that is killed then would be an error of the ended pool.
    await files.pool.query(`DROP DATABASE ${database}`)
  }
})

test('two loads at a time: one is refused', async () => {
  const file = await files.write('both.csv', `id\n${'1\n'.repeat(20_000)}`)
  const parts = { engine: files.engine, pool: files.pool }
  const outcomes = await Promise.allSettled([
    loadFile(parts, sweepOf('both'), file),
    loadFile(parts, sweepOf('both'), file),
  ])
  const reasons = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason.code] : []))
  // The second may come so late that the first has finished.
  expect(['FILE_LOADING', undefined]).toContain(reasons[0])
  expect(reasons.length).toBeLessThanOrEqual(1)
  expect(await rowsOf(files.pool, files.table('both'))).toHaveLength(20_000)
})

test('the columns of a file are told without loading it', async () => {
  const long = `a;b\n${'"x\n";y\n'.repeat(200_000)}`
  expect(await columnsOf(await files.write('columns.csv', long))).toEqual(['a', 'b'])
  expect(await columnsOf(await files.write('columns.jsonl', '{}'))).toBeNull()
  await expect(
    columnsOf(await files.write('columns.bad.csv', Buffer.from('\xe9', 'latin1'))),
  ).rejects.toThrow(/not UTF-8/)
  expect([sweepOf('told'), { name: 'other' }].map((task) => isFileSweep(task))).toEqual([true, false])
})

test('wrong options are all named', () => {
  const each = async () => null
  const definition = { name: 'wrong', table: 'a.b.c', resultColumns: ['x', 'x'], line: {}, each }
  expect(() => defineFileSweep(definition as never)).toThrow(
    /table: a table's name.*resultColumns: names of fields.*line: a Standard Schema/,
  )
  expect(() => defineFileSweep({ name: 'wrong', concurrency: 0, each })).toThrow(
    /concurrency: a whole number/,
  )
})
