import { chmod, mkdir, rm, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { setScene } from '../support/scene.ts'
import { spawnScout } from '../support/scout-process.ts'
import { temporaryFolder } from '../support/temporary-folder.ts'

// Anything that starts in spite of a wrong argument ends with an error about this.
const NOWHERE = { SCOUT_DATA: '/dev/null/data' }
const NOBODY = 65_534

describe.concurrent('a wrong command line', () => {
  test.for<[string[], RegExp]>([
    [[], /^Usage: npm run scout -- \[options\] \[command\]\n/],
    [
      ['analyze'],
      /^error: missing required argument 'folder'\n\nUsage: npm run scout -- analyze \[options\] <folder>\n/,
    ],
    [['analyze', 'a', 'b'], /^error: too many arguments for 'analyze'/],
    [['analyse', 'a'], /^error: unknown command 'analyse'\n\(Did you mean analyze\?\)\n/],
    [['analyze', '--fast', 'a'], /^error: unknown option '--fast'\n/],
  ])('%j is explained', async ([args, message], { onTestFinished }) => {
    const { code, output, errors } = await spawnScout(args, onTestFinished, { env: NOWHERE }).ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors).toMatch(message)
  })

  test('a folder that is missing, a file, or empty is named', async ({ onTestFinished }) => {
    const folder = await temporaryFolder(onTestFinished)
    await mkdir(path.join(folder, 'empty'))
    await writeFile(path.join(folder, 'file.jpg'), 'text')
    const places = [...['missing', 'file.jpg', 'empty'].map((name) => path.join(folder, name)), '']
    const outcomes = places.map((place) => {
      return spawnScout(['analyze', place], onTestFinished, { env: NOWHERE }).ended
    })
    const refused = (errors: string) => ({ code: 1, signal: null, output: '', errors })
    expect(await Promise.all(outcomes)).toEqual([
      refused(`${folder}/missing does not exist. Check the path.\n`),
      refused(`${folder}/file.jpg is not a folder. Give the folder that the images are in.\n`),
      refused(`${folder}/empty has no images in it. Scout looks for .jpg, .jpeg, .png and .webp files.\n`),
      refused('The name of the folder is empty. Give a folder; . is the current one.\n'),
    ])
  })

  test('its version is told', async ({ onTestFinished }) => {
    const { code, output } = await spawnScout(['--version'], onTestFinished, { env: NOWHERE }).ended
    expect({ code, output }).toEqual({ code: 0, output: `${manifest.version}\n` })
  })

  test('wrong settings are all named', async ({ onTestFinished }) => {
    const env = {
      ...NOWHERE,
      SCOUT_CONCURRENCY: 'many',
      SCOUT_MODEL: 'gpt',
      SCOUT_ENGINEPOOL: '3',
      DATABASE_URL: 'db',
    }
    const { code, output, errors } = await spawnScout(['analyze', 'samples'], onTestFinished, { env }).ended
    expect({ code, output }).toEqual({ code: 1, output: '' })
    expect(errors.split('\n')).toEqual([
      'Scout cannot start with these settings. Correct or unset the variables:',
      '  SCOUT_ENGINEPOOL: is not a setting of Scout. Did you mean SCOUT_ENGINE_POOL?',
      '  SCOUT_MODEL: must be openai:MODEL, anthropic:MODEL or compatible:MODEL, or unset for the local detector.',
      '  SCOUT_CONCURRENCY: must be a whole number from 1 to 1000, not "many".',
      '  DATABASE_URL: must be a URL such as postgres://USER:PASSWORD@HOST:5432/DATABASE.',
      '',
    ])
  })

  test('a data folder that cannot be made is named', async ({ onTestFinished }) => {
    const { code, errors } = await spawnScout(['analyze', 'samples'], onTestFinished, { env: NOWHERE }).ended
    expect(code).toBe(1)
    expect(errors).toMatch(/^The directory \/dev\/null\/data\/postgres cannot be used/)
  })
})

describe.skipIf(process.geteuid?.() !== 0).concurrent('what root alone could read', () => {
  test('an unreadable folder is named', async ({ onTestFinished }) => {
    const { folder, env } = await setScene(1, onTestFinished)
    await chmod(folder, 0o700)
    const { code, errors } = await spawnScout(['analyze', folder], onTestFinished, { env, uid: NOBODY }).ended
    expect(code).toBe(1)
    expect(errors).toBe(`${folder} cannot be read (EACCES). Give this user permission to read it.\n`)
  })

  test('unreadable files, folders and broken links are named, and the rest is analysed', async ({
    onTestFinished,
  }) => {
    const { folder, env, database, data } = await setScene(4, onTestFinished)
    await mkdir(path.join(folder, 'secret'))
    await chmod(path.join(folder, 'secret'), 0o700)
    await chmod(path.join(folder, '00.jpg'), 0o600)
    await symlink('nothing', path.join(folder, 'link.png'))
    await mkdir(data)
    await chmod(data, 0o777)
    const run = () => spawnScout(['analyze', folder], onTestFinished, { env, uid: NOBODY }).ended
    const { code, output, errors } = await run()
    expect({ code, errors }).toEqual({ code: 1, errors: '' })
    expect(output).toContain(`\nnot read: ${folder}/secret cannot be read (EACCES).`)
    expect(output).toContain(`\nnot read: ${folder}/00.jpg cannot be read (EACCES).`)
    expect(output).toContain(`\nnot read: ${folder}/link.png is a symbolic link that leads to nothing`)
    expect((await database.analyses()).map(({ status }) => status)).toEqual([
      'completed',
      'completed',
      'completed',
    ])
    await chmod(path.join(folder, 'secret'), 0o755)
    await chmod(path.join(folder, '00.jpg'), 0o644)
    await rm(path.join(folder, 'link.png'))
    expect(await run()).toMatchObject({ code: 0, errors: '' })
  })
})
