import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EXIT } from '../src/index.ts'
import { CliProcess, type Ending } from './support/cli-process.ts'
import { projectFolder } from './support/scene.ts'

let folder: string
beforeAll(() => {
  folder = projectFolder()
  writeFileSync(path.join(folder, 'triphase.config.mjs'), `console.error('LOADED'); export default null`)
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const run = (line: string): Promise<Ending> =>
  new CliProcess(
    line.split(' ').filter((word) => word !== ''),
    { cwd: folder },
  ).ended

describe.concurrent('wrong arguments are refused before the config file is loaded', () => {
  test.for([
    ['nope', /unknown command 'nope'/],
    ['--nope', /unknown option '--nope'/],
    ['sweep', /missing required argument 'name'/],
    ['sweep status', /name of the sweep comes first: triphase sweep NAME status/],
    ['sweep run x', /name of the sweep comes first: triphase sweep x run/],
    ['sweep x nope', /unknown command 'nope'/],
    ['sweep x run --nope', /unknown option '--nope'/],
    ['sweep x run --jsno', /Did you mean --json/],
    ['sweep x run --concurrency 0', /whole number of at least 1/],
    ['sweep x run --rate -1', /number above 0/],
    ['sweep x run --rate 0', /number above 0/],
    ['sweep x run --progress film', /Allowed choices are bar, lines, none/],
    ['sweep x run now', /too many arguments/],
    ['sweep x plan --ms soon', /1\.5s/],
    ['sweep x plan --sample 2 --ms 5', /one or the other/],
    ['sweep x sample 0', /whole number of at least 1/],
    ['sweep x sample 1 2', /too many arguments/],
    ['sweep x errors --after 1', /belongs to --group/],
    ['sweep x errors --group', /argument missing/],
    ['sweep x retry-errors', /one of --all, --group GROUP or --key/],
    ['sweep x retry-errors --all --group 5f0c', /one of --all, --group GROUP or --key/],
    ['sweep x retry-errors --key ["1"', /JSON array/],
    ['sweep x retry-errors --key [9007199254740993,"de"]', /exactly as a text only: put it in quotes/],
    ['sweep x change', /Say what to change/],
    ['sweep x change --budget-calls some', /whole number/],
    ['sweep x status --wait', /belong to --follow/],
    ['sweep x migration --format prisma', /Allowed choices are sql, kysely, drizzle, knex/],
    ['migrate --after 1', /belongs to --print/],
    ['migrate 3', /too many arguments/],
    ['work --queues', /unknown option/],
  ] as const)('%s', async ([line, message]) => {
    const { code, stdout, stderr } = await run(line)
    expect(stderr).toMatch(message)
    expect(stderr).toMatch(/^USAGE: [^\n]+\n$/)
    expect(stdout).toBe('')
    expect(code).toBe(EXIT.usage)
  })

  test('options that all commands have stand anywhere', async () => {
    for (const line of ['--json sweep x change', 'sweep --json x change', 'sweep x change --json'])
      expect(JSON.parse((await run(line)).stderr)).toMatchObject({ error: { code: 'USAGE' } })
    for (const line of [
      '--config a.ts migrate',
      'sweep --config a.ts x status',
      'sweep x status --config a.ts',
    ])
      expect((await run(line)).stderr).toMatch(/^CONFIG_MISSING: .*a\.ts/)
  })

  test('with --json as a value on stderr', async () => {
    const { code, stdout, stderr } = await run('sweep x change --json')
    expect([code, stdout]).toEqual([2, ''])
    expect(JSON.parse(stderr)).toEqual({
      error: { code: 'USAGE', message: expect.stringMatching(/^Say what/) },
    })
  })
})

describe.concurrent('help', () => {
  test('is shown where no command is given, as a fault', async () => {
    for (const line of ['', 'sweep x']) {
      const { code, stdout, stderr } = await run(line)
      expect([code, stdout]).toEqual([EXIT.usage, ''])
      expect(stderr).toMatch(/^Usage: triphase/)
    }
  })

  test('is shown on stdout when it is asked for', async () => {
    expect(await run('--help')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/migrate.*sweep/s),
      stderr: '',
    })
    expect(await run('sweep --help')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/retry-errors.*cancel/s),
    })
    expect(await run('sweep x run --help')).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('--detach'),
    })
  })

  test('the version is that of the package', async () => {
    const { version } = JSON.parse(readFileSync(path.join(import.meta.dirname, '../package.json'), 'utf8'))
    expect(await run('--version')).toMatchObject({ code: 0, stdout: `${version}\n` })
  })
})
