import { beforeEach, describe, expect, test } from 'vitest'
import { EXIT } from '../src/index.ts'
import { useScene } from './support/scene.ts'

const scene = useScene('verbs', { more: 'misfits' })
beforeEach(() => scene.fill(5))

/** Runs to the end with records 2 and 4 refused, so that there are errors to look at. */
async function runWithErrors(): Promise<void> {
  for (const key of ['2', '4']) scene.api.behave({ kind: 'error', status: 422 }, { key })
  scene.api.behave({ kind: 'error', status: 500 }, { key: '5' })
  expect((await scene.run('sweep', 'describe', 'run')).code).toBe(EXIT.recordErrors)
  scene.api.reset()
}

describe('a sweep that does not exist', () => {
  test('is told beside those that do', async () => {
    const { code, stdout, stderr } = await scene.run('sweep', 'descibe', 'status')
    expect(stderr).toBe('UNKNOWN_SWEEP: There is no sweep descibe. There are: describe, misfit, broken.\n')
    expect([code, stdout]).toEqual([EXIT.usage, ''])
  })
})

describe('migration', () => {
  test.each([
    ['sql', /ALTER TABLE .*cli_verbs_records/],
    ['kysely', /from 'kysely'/],
    ['drizzle', /statement-breakpoint/],
    ['knex', /from 'knex'/],
  ])('prints %s, and connects to nothing', async (format, text) => {
    const offline = { TEST_URL: 'postgres://127.0.0.1:1/nobody' }
    const args = ['sweep', 'describe', 'migration', '--format', format]
    const { code, stdout, stderr } = await scene.start(args, { env: offline }).ended
    expect([code, stderr]).toEqual([EXIT.ok, ''])
    expect(stdout).toMatch(text)
    expect((await scene.json(...args)).value).toEqual({ sweep: 'describe', format, migration: stdout })
  })

  test('of a partitioned table builds on each of its partitions', async () => {
    const args = ['sweep', 'describe', 'migration', '--partitions', 'first_part', 'second_part']
    const { code, stdout } = await scene.run(...args)
    expect(code).toBe(EXIT.ok)
    expect(stdout).toMatch(/CONCURRENTLY .* ON "first_part"[\s\S]* ON "second_part"[\s\S]* ATTACH PARTITION/)
  })
})

describe('check', () => {
  test('says that a table fits', async () => {
    expect(await scene.run('sweep', 'describe', 'check')).toMatchObject({
      code: EXIT.ok,
      stdout: 'describe: its table fits.\n',
    })
    const { value } = await scene.json('sweep', 'describe', 'check')
    expect(value).toEqual({ sweep: 'describe', fits: true, faults: [] })
  })

  test('names what a table lacks', async () => {
    const { code, stdout, stderr } = await scene.run('sweep', 'misfit', 'check')
    expect(code).toBe(EXIT.database)
    expect(stdout).toMatch(/^misfit cannot run:\n {2}there is no table/)
    expect(stderr).toContain('triphase sweep misfit migration')
    const json = await scene.json('sweep', 'misfit', 'check')
    expect(json).toMatchObject({ code: EXIT.database, value: { fits: false, faults: [expect.any(String)] } })
  })
})

describe('plan', () => {
  test('counts, and estimates from what a call takes and costs', async () => {
    const { code, stdout } = await scene.run('sweep', 'describe', 'plan', '--ms', '4s', '--cost', '0.003')
    expect(stdout).toBe('describe: 5 pending, 0 done, 0 errors\n  time: about 5 s\n  cost: about 0.015\n')
    expect(code).toBe(EXIT.ok)
    expect((await scene.json('sweep', 'describe', 'plan')).value).toEqual({
      sweep: 'describe',
      pending: 5,
      done: 0,
      errors: 0,
      estimatedMs: null,
      estimatedCost: null,
    })
    expect(scene.api.calls).toBe(0)
  })

  test('measures with real calls, and marks nothing', async () => {
    const { value } = await scene.json('sweep', 'describe', 'plan', '--sample', '2')
    expect(value).toMatchObject({ pending: 5, estimatedMs: expect.any(Number), estimatedCost: 2.5 })
    expect(scene.api.calls).toBe(2)
    expect(await scene.counts()).toEqual({ pending: 5 })
  })
})

describe('sample', () => {
  test('calls some records and shows what came of it, and writes nothing', async () => {
    scene.api.behave({ kind: 'error', status: 422 }, { key: '2' })
    const { code, stdout } = await scene.run('sweep', 'describe', 'sample', '2')
    expect(stdout).toMatch(
      /^1: done in \d+ ms, spent 0\.5\n {2}answer to 1\n2: error in \d+ ms, spent 0\.5\n {2}record 2 cannot be read\n2 records called, nothing was written/,
    )
    expect(code).toBe(EXIT.recordErrors)
    expect(await scene.counts()).toEqual({ pending: 5 })
  })

  test('marks them with --commit', async () => {
    const { code, value } = await scene.json('sweep', 'describe', 'sample', '3', '--commit')
    expect(code).toBe(EXIT.ok)
    expect(value).toMatchObject({ sweep: 'describe', committed: true })
    expect(value.records).toEqual(
      ['1', '2', '3'].map((id) => ({
        key: [id],
        outcome: 'done',
        result: `answer to ${id}`,
        error: null,
        durationMs: expect.any(Number),
        spent: 0.5,
        marked: true,
      })),
    )
    expect(await scene.counts()).toEqual({ done: 3, pending: 2 })
  })

  test('takes five records unless told otherwise, and says when none is pending', async () => {
    expect((await scene.run('sweep', 'describe', 'sample', '--commit')).stdout).toContain(
      '5 records called, 5 marked.',
    )
    expect(await scene.run('sweep', 'describe', 'sample')).toMatchObject({
      code: EXIT.ok,
      stdout: 'No record is pending.\n',
    })
  })
})

describe('errors and retry-errors', () => {
  test('show groups, then the records of one', async () => {
    await runWithErrors()
    const { value } = await scene.json('sweep', 'describe', 'errors')
    const [most, least] = value.groups as { group: string; count: number }[]
    expect(most).toMatchObject({ pattern: 'record <n> cannot be read', count: 2, exampleKey: ['2'] })
    expect(least).toMatchObject({ pattern: 'answered <n>', count: 1, example: 'answered 500' })
    const { code, stdout, stderr } = await scene.run('sweep', 'describe', 'errors')
    expect(code).toBe(EXIT.ok)
    expect(stdout).toBe(
      `2  ${most?.group}  record <n> cannot be read\n   such as 2: record 2 cannot be read\n1  ${least?.group}  answered <n>\n   such as 5: answered 500\n`,
    )
    expect(stderr).toContain('errors --group GROUP')

    const group = most?.group as string
    const records = await scene.run('sweep', 'describe', 'errors', '--group', group)
    expect(records.stdout).toBe('2: record 2 cannot be read\n4: record 4 cannot be read\n')
    const first = await scene.json('sweep', 'describe', 'errors', '--group', group, '--limit', '1')
    expect(first.value).toEqual({
      sweep: 'describe',
      group,
      errors: [{ key: ['2'], message: 'record 2 cannot be read' }],
      next: ['2'],
    })
    const rest = await scene.json('sweep', 'describe', 'errors', '--group', group, '--after', '2')
    expect(rest.value).toMatchObject({ errors: [{ key: ['4'] }], next: null })
  })

  test('say when there are none', async () => {
    expect((await scene.run('sweep', 'describe', 'errors')).stdout).toBe(
      'describe: no record is marked as an error.\n',
    )
    expect((await scene.run('sweep', 'describe', 'errors', '--group', 'x')).stdout).toMatch(
      /no record .* group x\.\n$/,
    )
    expect(await scene.json('sweep', 'describe', 'retry-errors', '--all')).toEqual({
      code: EXIT.ok,
      value: { sweep: 'describe', retried: 0 },
    })
  })

  test('make one record, a group, or all pending again', async () => {
    await runWithErrors()
    const { value } = await scene.json('sweep', 'describe', 'errors')
    const [{ group } = { group: '' }] = value.groups as { group: string }[]
    const one = await scene.run('sweep', 'describe', 'retry-errors', '--key', '2', '["77"]')
    expect(one).toMatchObject({ code: EXIT.ok, stdout: 'describe: 1 record is pending again.\n' })
    expect((await scene.json('sweep', 'describe', 'retry-errors', '--group', group)).value).toMatchObject({
      retried: 1,
    })
    expect(await scene.counts()).toEqual({ done: 2, error: 1, pending: 2 })
    expect((await scene.run('sweep', 'describe', 'retry-errors', '--all')).stdout).toMatch(/1 record is/)
    expect((await scene.run('sweep', 'describe', 'run')).code).toBe(EXIT.ok)
    expect(await scene.counts()).toEqual({ done: 5 })
  })

  test.each([
    ['abc', /^22P02: .*"abc"/],
    ['["2","3"]', /^INVALID_OPTIONS: keys: .* is not a key of id/],
  ])('refuse the key %s', async (key, message) => {
    await runWithErrors()
    const { code, stderr } = await scene.run('sweep', 'describe', 'retry-errors', '--key', key)
    expect(stderr).toMatch(message)
    expect(code).toBe(EXIT.usage)
  })
})

test('what a model answered cannot move the cursor', async () => {
  scene.api.behave({ kind: 'answer', answer: 'a\u001b[2Jb\rc' }, { key: '1' })
  const { stdout } = await scene.run('sweep', 'describe', 'sample', '1')
  expect(stdout).toContain('\n  a [2Jb c\n')
})
