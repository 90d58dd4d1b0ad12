import { mkdir, readdir, readFile } from 'node:fs/promises'
import { PassThrough, Writable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { Permanent } from 'triphase'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { defineFileSweep, exportFile, loadFile } from '../src/index.ts'
import { useFiles } from './support/file-bench.ts'

const files = useFiles()

test('every line comes back in its order, its own columns first, then status, result and error', async () => {
  const sweep = defineFileSweep({
    name: 'shout',
    table: files.table('shout'),
    line: z.object({ id: z.coerce.number(), text: z.string() }),
    concurrency: 3,
    each: async ({ id, text }, { line }) => {
      if (id === 2) throw new Permanent('too quiet, "sorry"')
      return id === 3 ? { line, text: text.toUpperCase() } : text.toUpperCase()
    },
  })
  const engine = await files.start(sweep)
  const file = await files.write('shout.csv', 'id;text\n1;"a;b"\n2;c\n3;"d\nd"\n')
  await loadFile({ engine, pool: files.pool }, sweep, file)
  const before = await exportFile(files, sweep, files.path('before.csv'))
  expect(before).toEqual({ lines: 3, done: 0, errors: 0, pending: 3 })
  expect(await files.read('before.csv')).toBe(
    'id;text;status;result;error\n1;"a;b";pending;;\n2;c;pending;;\n3;"d\nd";pending;;\n',
  )
  await engine.sweep(sweep).run()
  await engine.sweep(sweep).settled()
  expect(await exportFile(files, sweep, files.path('after.csv'))).toEqual({
    lines: 3,
    done: 2,
    errors: 1,
    pending: 0,
  })
  expect(await files.read('after.csv')).toBe(
    [
      'id;text;status;result;error',
      '1;"a;b";done;"A;B";',
      '2;c;error;;"too quiet, ""sorry"""',
      '3;"d\nd";done;"{""line"":4,""text"":""D\\nD""}";',
      '',
    ].join('\n'),
  )
  await exportFile(files, sweep, files.path('after.jsonl'))
  expect((await files.read('after.jsonl')).split('\n')).toEqual([
    '{"id":"1","text":"a;b","status":"done","result":"A;B","error":null}',
    '{"id":"2","text":"c","status":"error","result":null,"error":"too quiet, \\"sorry\\""}',
    '{"id":"3","text":"d\\nd","status":"done","result":{"line":4,"text":"D\\nD"},"error":null}',
    '',
  ])
})

test('a result has columns of its own where the sweep names them; formulas in it are texts', async () => {
  const results = [
    { label: '=cmd()', score: -1.5, box: [1] },
    { label: '+49 30 1', score: null },
    { label: '-7,5', other: 1 },
    'no object',
  ]
  const sweep = defineFileSweep({
    name: 'labels',
    table: files.table('labels'),
    resultColumns: ['label', 'score', 'box'],
    each: async (_record, { line }) => results[line - 2],
  })
  const engine = await files.start(sweep)
  const file = await files.write('labels.csv', '\ufefflabel\r\n=1+1\r\n@b\r\nc\r\nd\r\n')
  await loadFile({ engine, pool: files.pool }, sweep, file)
  await engine.sweep(sweep).run()
  await engine.sweep(sweep).settled()
  await exportFile(files, sweep, files.path('labels.out.csv'))
  expect(await files.read('labels.out.csv')).toBe(
    [
      '\ufefflabel,status_2,label_2,score_2,box_2,error_2',
      "=1+1,done,'=cmd(),-1.5,[1],",
      "@b,done,'+49 30 1,,,",
      'c,done,"-7,5",,,',
      'd,done,,,,',
      '',
    ].join('\r\n'),
  )
  await exportFile(files, sweep, files.path('kept.tsv'), { escapeFormulas: false })
  expect((await files.read('kept.tsv')).split('\r\n')[1]).toBe('=1+1\tdone\t=cmd()\t-1.5\t[1]\t')
})

test('the text of a JSONL line stays what it was, and its names get no second meaning', async () => {
  const sweep = defineFileSweep({ name: 'exact', table: files.table('exact'), each: async () => 'x' })
  const lines = [
    '{"id":12345678901234567890,"z":1.50,"2":1,"1":{"deep":["}"]}}',
    '{ }',
    '{"status":"theirs", "result_2":null}',
  ]
  const file = await files.write('exact.jsonl', `${lines.join('\n')}\n`)
  await loadFile({ engine: files.engine, pool: files.pool }, sweep, file)
  await exportFile(files, sweep, files.path('exact.out.jsonl'))
  const own = '"status_3":"pending","result_3":null,"error_3":null}'
  expect((await files.read('exact.out.jsonl')).split('\n')).toEqual([
    `${lines[0]?.slice(0, -1)},${own}`,
    `{${own}`,
    `${lines[2]?.slice(0, -1)},${own}`,
    '',
  ])
  await exportFile(files, sweep, files.path('exact.out.csv'))
  expect((await files.read('exact.out.csv')).split('\n')[0]).toBe(
    '1,2,id,z,status,result_2,status_3,result_3,error_3',
  )
})

test('an export goes into a stream, too', async () => {
  const sweep = defineFileSweep({ name: 'streamed', table: files.table('streamed'), each: async () => null })
  await loadFile(
    { engine: files.engine, pool: files.pool },
    sweep,
    await files.write('streamed.csv', 'a\n1\n'),
  )
  const stream = new PassThrough()
  const [text, counts] = await Promise.all([buffer(stream), exportFile(files, sweep, stream)])
  expect([text.toString(), counts.lines]).toEqual(['a,status,result,error\n1,pending,,\n', 1])
})

test('what cannot be written or read is said, and the old file stays', async () => {
  const sweep = defineFileSweep({ name: 'gone', table: files.table('gone'), each: async () => null })
  const target = await files.write('gone.out.csv', 'old')
  await expect(exportFile(files, sweep, target)).rejects.toMatchObject({ code: 'NO_FILE' })
  expect(await readFile(target, 'utf8')).toBe('old')
  await mkdir(files.path('folder'))
  for (const place of ['folder', 'nowhere/out.csv']) {
    const exporting = exportFile(files, sweep, files.path(place), { format: 'csv' })
    await expect(exporting).rejects.toMatchObject({ code: 'FILE_UNWRITABLE' })
  }
  expect((await readdir(files.path('.'))).filter((name) => name.endsWith('.partial'))).toEqual([])
})

test('a stream that fails is not taken for the connection', async () => {
  const sweep = defineFileSweep({ name: 'failing', table: files.table('failing'), each: async () => null })
  const file = await files.write('failing.csv', 'a\n1\n')
  await loadFile({ engine: files.engine, pool: files.pool }, sweep, file)
  const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' })
  const stream = new Writable({ write: (_chunk, _encoding, done) => done(full) })
  await expect(exportFile(files, sweep, stream)).rejects.toBe(full)
})
