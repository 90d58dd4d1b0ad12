import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../../triphase/test/support/processes.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('files', { more: 'files' })
const classify = (...args: string[]) => scene.run('sweep', 'classify', ...args)
const file = (name: string) => path.join(scene.folder, name)

beforeEach(async () => {
  await scene.pool.query(`DROP TABLE IF EXISTS ${scene.table}_lines`)
  writeFileSync(file('list.csv'), 'id,text\n1,one\n2,\n3,three\n')
})

describe('files', () => {
  test('a list is loaded, run and exported', async () => {
    const loaded = await classify('load', 'list.csv')
    expect(loaded).toEqual({
      code: 0,
      signal: null,
      stdout: 'classify: loaded 3 lines of list.csv.\n',
      stderr: 'Go on with: triphase sweep classify run.\n',
    })
    expect((await classify('run')).code).toBe(5)
    const again = await scene.json('sweep', 'classify', 'load', 'list.csv')
    expect(again).toMatchObject({
      code: 0,
      value: { sweep: 'classify', loaded: false, file: 'list.csv', lines: 3 },
    })
    expect(await classify('export', 'results.csv')).toMatchObject({
      code: 0,
      stdout: 'classify: 3 lines in results.csv: 2 done, 1 error, 0 pending.\n',
    })
    expect(readFileSync(file('results.csv'), 'utf8')).toBe(
      'id,text,status,result,error\n1,one,done,ONE,\n2,,error,,there is no text\n3,three,done,THREE,\n',
    )
    const exported = await scene.json('sweep', 'classify', 'export', 'results.txt', '--format', 'jsonl')
    expect(exported.value).toEqual({
      sweep: 'classify',
      file: 'results.txt',
      lines: 3,
      done: 2,
      errors: 1,
      pending: 0,
    })
  })

  test('another file takes its place only when that is asked for', async () => {
    await classify('load', 'list.csv')
    writeFileSync(file('list.csv'), 'id,text\n4,four\n')
    const { code, stderr } = await classify('load', 'list.csv')
    expect(code).toBe(8)
    expect(stderr).toMatch(
      /^FILE_LOADED: .* To load list\.csv in its place, which loses these results, add --replace\.\n$/,
    )
    expect(await classify('load', 'list.csv', '--replace')).toMatchObject({
      code: 0,
      stdout: 'classify: loaded 1 line of list.csv.\n',
    })
  })

  test.each([
    [['load', 'missing.csv'], 2, /^FILE_UNREADABLE: .*missing\.csv/],
    [['load', 'list.dat'], 2, /^INVALID_OPTIONS: /],
    [['load'], 2, /^USAGE: missing required argument 'file'/],
    [['load', 'list.csv', '--format', 'xml'], 2, /^USAGE: .*Allowed choices are csv, jsonl/],
    [
      ['load', 'broken.csv'],
      2,
      /^FILE_FAULTS: broken\.csv cannot be loaded, and nothing of it was: line 3: /,
    ],
    [['export', 'results.csv'], 8, /^NO_FILE: .* Begin with: triphase sweep classify load FILE\.\n$/],
    [['run'], 4, /^SWEEP_TABLE: .* triphase sweep classify load FILE makes it\.\n$/],
  ])('%j is refused with %i', async (args, code, message) => {
    writeFileSync(file('broken.csv'), 'id,text\n1,one\n2\n')
    const ending = await classify(...args)
    expect(ending.stderr).toMatch(message)
    expect(ending).toMatchObject({ code, stdout: '' })
  })

  test('a place that cannot be written is refused', async () => {
    await classify('load', 'list.csv')
    expect(await classify('export', 'nowhere/out.csv')).toMatchObject({
      code: 2,
      stderr:
        'FILE_UNWRITABLE: nowhere/out.csv cannot be written (ENOENT). Give another place, or this user the right to write there.\n',
    })
    expect((await classify('export', '/dev/null', '--format', 'csv')).stderr).toMatch(
      /^FILE_UNWRITABLE: .*it is no file/,
    )
  })

  test('a sweep over a table has no file, and a config without a pool cannot load one', async () => {
    expect(await scene.run('sweep', 'describe', 'load', 'list.csv')).toMatchObject({
      code: 2,
      stderr:
        'USAGE: Sweep describe goes over a table of yours, not over a file: those are defined with defineFileSweep.\n',
    })
    const { code, stderr } = await scene.start(['sweep', 'classify', 'load', 'list.csv'], {
      env: { TEST_POOL: 'none' },
    }).ended
    expect({ code, stderr }).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/^CONFIG_NO_POOL: .*export const pool = /),
    })
  })

  test('Ctrl-C in the middle of loading leaves what was there', async () => {
    await classify('load', 'list.csv')
    writeFileSync(file('other.csv'), 'id,text\n4,four\n')
    const reader = await scene.pool.connect()
    try {
      // The new table is filled; to take the old one's place it has to wait for its reader.
      await reader.query(`BEGIN; LOCK TABLE ${scene.table}_lines IN ACCESS SHARE MODE`)
      const loading = scene.start(['sweep', 'classify', 'load', 'other.csv', '--replace'])
      const waiting = `SELECT 1 FROM pg_locks WHERE relation = '${scene.table}_lines'::regclass AND NOT granted`
      await eventually(async () => (await scene.pool.query(waiting)).rowCount === 1)
      loading.signal('SIGINT')
      expect(await loading.ended).toMatchObject({ code: 130, stdout: '', stderr: '' })
    } finally {
      await reader.query('ROLLBACK')
      reader.release()
    }
    expect((await classify('load', 'list.csv')).stdout).toMatch(/^classify: list\.csv is there already/)
    const tables = `SELECT 1 FROM pg_class WHERE relname LIKE '${scene.table}_lines%' AND relkind = 'r'`
    await eventually(async () => (await scene.pool.query(tables)).rowCount === 1)
  })
})
