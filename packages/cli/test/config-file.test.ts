import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { EXIT } from '../src/index.ts'
import { CliProcess, type Ending } from './support/cli-process.ts'
import { projectFolder } from './support/scene.ts'

function folderWith(files: Record<string, string>): string {
  const folder = projectFolder()
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true })
    writeFileSync(path.join(folder, name), text)
  }
  return folder
}

/** The command that needs a config file and no database. */
async function print(files: Record<string, string>, ...args: string[]): Promise<Ending> {
  return new CliProcess(['migrate', '--print', ...args], { cwd: folderWith(files) }).ended
}

const engine = (schema: string) =>
  `import { createEngine } from 'triphase'\nexport default createEngine({ url: 'postgres://me:hunter2@127.0.0.1:1/app', schema: '${schema}' })`

describe('a config file', () => {
  test.each(['triphase.config.ts', 'triphase.config.mts', 'triphase.config.js', 'triphase.config.mjs'])(
    'is found as %s',
    async (name) => {
      const { code, stdout, stderr } = await print({ [name]: engine('found_it') })
      expect(stderr).toBe('')
      expect(stdout).toContain('CREATE SCHEMA IF NOT EXISTS "found_it";')
      expect(code).toBe(EXIT.ok)
    },
  )

  test('is the TypeScript one where there are two, and the one that --config names before all', async () => {
    const files = {
      'triphase.config.mjs': engine('second'),
      'triphase.config.ts': engine('first'),
      'deploy/engine.ts': engine('third').replace('default', 'const engine ='),
    }
    expect((await print(files)).stdout).toContain('EXISTS "first";')
    expect((await print(files, '--config', 'deploy/engine.ts')).stdout).toContain('EXISTS "third";')
  })

  test.each<[string, Record<string, string>, string[], string, RegExp]>([
    ['is missing', {}, [], 'CONFIG_MISSING', /no triphase\.config\.ts, .*--config/],
    ['is missing where --config says', {}, ['--config', 'a.ts'], 'CONFIG_MISSING', /no file .*a\.ts/],
    [
      'exports no engine',
      { 'triphase.config.ts': 'export default {}' },
      [],
      'CONFIG_NO_ENGINE',
      /export default createEngine/,
    ],
    [
      'throws',
      { 'triphase.config.ts': `throw new Error('no postgres://me:hunter2@db/app here')` },
      [],
      'CONFIG_FAILED',
      /no postgres:\/\/me:\*\*\*@db\/app here/,
    ],
    ['throws what is no error', { 'triphase.config.ts': `throw 'nothing'` }, [], 'CONFIG_FAILED', /nothing/],
    ['is no JavaScript', { 'triphase.config.js': 'export default {' }, [], 'CONFIG_FAILED', /Unexpected end/],
    [
      'configures what cannot be',
      { 'triphase.config.ts': engine('x').replace('schema', 'shema') },
      [],
      'INVALID_CONFIG',
      /shema: there is no such option/,
    ],
    [
      'needs more than types left out',
      { 'triphase.config.ts': `enum Queue { A }\n${engine('x')}` },
      [],
      'CONFIG_FAILED',
      /enums.*--import tsx/,
    ],
    [
      'imports without endings',
      { 'triphase.config.ts': `import './tasks'\n${engine('x')}`, 'tasks.ts': '' },
      [],
      'CONFIG_FAILED',
      /'\.\/tasks\.ts'.*--import tsx/,
    ],
  ])('that %s is told as such', async (_, files, args, code, message) => {
    const ended = await print(files, ...args)
    expect(ended.stderr).toMatch(message)
    expect(ended.stderr).toMatch(new RegExp(`^${code}: [^\\n]+\\n$`))
    expect(ended).toMatchObject({ code: EXIT.config, stdout: '' })
    expect(ended.stderr).not.toContain('hunter2')
    const json = await print(files, ...args, '--json')
    expect(JSON.parse(json.stderr)).toEqual({ error: { code, message: expect.stringMatching(message) } })
  })

  test('shows where its error comes from with --debug, and no secret there either', async () => {
    const files = { 'triphase.config.ts': `throw new Error('postgres://me:hunter2@db/app')` }
    const { stderr } = await print(files, '--debug')
    expect(stderr).toMatch(/Caused by: Error: .*\n\s+at .*triphase\.config\.ts:1/)
    expect(stderr).not.toContain('hunter2')
  })

  test('without Node that runs TypeScript: says what to do', async () => {
    const folder = folderWith({ 'triphase.config.ts': engine('x') })
    // The program itself is TypeScript here, so only the config file is given to a Node that does not know it.
    const hook = `import { registerHooks } from 'node:module'
      registerHooks({ load: (url, context, next) => {
        if (!url.endsWith('triphase.config.ts')) return next(url, context)
        throw Object.assign(new TypeError('Unknown file extension ".ts"'), { code: 'ERR_UNKNOWN_FILE_EXTENSION' })
      } })`
    writeFileSync(path.join(folder, 'hook.mjs'), hook)
    const env = { NODE_OPTIONS: `--import ${path.join(folder, 'hook.mjs')}` }
    const { code, stderr } = await new CliProcess(['migrate', '--print'], { cwd: folder, env }).ended
    expect(stderr).toMatch(
      /does not run TypeScript: take Node 22\.18 or later, write the file as \.mjs, or let a loader/,
    )
    expect(code).toBe(EXIT.config)
  })
})
