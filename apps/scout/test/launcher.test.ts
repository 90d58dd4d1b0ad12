import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, realpath, symlink, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, onTestFinished, test } from 'vitest'
import { temporaryFolder } from './support/temporary-folder.ts'

/**
 * A project of its own around the real launcher, whose main.ts says what it got. `old` makes the launcher believe that
 * it runs on Node 20.
 */
async function project(main: string): Promise<string> {
  const root = await temporaryFolder()
  await mkdir(path.join(root, 'apps/scout/src'), { recursive: true })
  await mkdir(path.join(root, 'node_modules/.bin'), { recursive: true })
  await copyFile(path.join(import.meta.dirname, '../scout.mjs'), path.join(root, 'apps/scout/scout.mjs'))
  await writeFile(path.join(root, 'apps/scout/src/main.ts'), main)
  await writeFile(
    path.join(root, 'old.mjs'),
    "if (!process.env.NEW_NODE) Object.defineProperty(process.versions, 'node', { value: '20.20.2' })",
  )
  return root
}

/** The Node of this test, known by a variable, as the one that npm installed at `place`. */
async function installNode(root: string, place: string): Promise<void> {
  const file = path.join(root, 'node_modules', place)
  await mkdir(path.dirname(file), { recursive: true })
  await writeFile(file, `#!/bin/sh\nNEW_NODE=1 exec '${process.execPath}' "$@"\n`)
  await chmod(file, 0o755)
}

function launch(root: string, { old = false, args = [] as string[], env = {} } = {}): ChildProcess {
  const old20 = old ? ['--import', path.join(root, 'old.mjs')] : []
  const child = spawn(process.execPath, [...old20, path.join(root, 'apps/scout/scout.mjs'), ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return child
}

async function outcome(child: ChildProcess) {
  const [[code, signal], output, errors] = await Promise.all([
    once(child, 'close'),
    text(child.stdout!),
    text(child.stderr!),
  ])
  return { code, signal, output, errors }
}

const SAYS_ITS_ARGUMENTS =
  'const words: string[] = process.argv.slice(2)\nconsole.log(process.pid, ...words)\nprocess.exitCode = 3'
const STOPS_ON_SIGTERM = `process.on('SIGTERM', () => { console.log('stopping'); clearInterval(timer); process.exitCode = 5 })
process.on('SIGINT', () => console.log('interrupted'))
const timer = setInterval(() => {}, 1_000)
console.log('ready')`

describe('the launcher', () => {
  test.each([['scout'], ['test']])(
    'goes to where the command was typed only where npm runs it for a person: %s',
    async (script) => {
      const root = await project('console.log(process.cwd())')
      const typedIn = await temporaryFolder()
      const env = { npm_lifecycle_event: script, INIT_CWD: typedIn }
      const folder = script === 'scout' ? typedIn : process.cwd()
      expect(await outcome(launch(root, { env }))).toMatchObject({
        code: 0,
        output: `${await realpath(folder)}\n`,
      })
    },
  )

  test('runs TypeScript in its own process when this Node can', async () => {
    const child = launch(await project(SAYS_ITS_ARGUMENTS), { args: ['analyze', 'a b'] })
    expect(await outcome(child)).toEqual({
      code: 3,
      signal: null,
      output: `${child.pid} analyze a b\n`,
      errors: '',
    })
  })

  test("resolves the workspace's packages to their sources", async () => {
    const root = await project("import { from } from 'engine'\nconsole.log(from)")
    await mkdir(path.join(root, 'packages/engine'), { recursive: true })
    const exports = { 'triphase-source': './source.ts', default: './built.js' }
    await writeFile(
      path.join(root, 'packages/engine/package.json'),
      JSON.stringify({ name: 'engine', type: 'module', exports }),
    )
    await writeFile(path.join(root, 'packages/engine/source.ts'), "export const from: string = 'source'")
    await symlink('../packages/engine', path.join(root, 'node_modules/engine'))
    expect(await outcome(launch(root))).toMatchObject({ code: 0, output: 'source\n', errors: '' })
  })

  test.each([
    '.bin/node',
    'node/bin/node',
    `node/node_modules/node-${process.platform}-${process.arch}/bin/node`,
  ])('on an old Node it runs on the one at node_modules/%s, and ends as it does', async (place) => {
    const root = await project(SAYS_ITS_ARGUMENTS)
    // As `npm ci --ignore-scripts` leaves it: a link to a binary that was never fetched.
    await symlink('../node/bin/missing', path.join(root, 'node_modules/.bin/node'))
    if (place !== '.bin/node') await installNode(root, place)
    else await installNode(root, 'node/bin/missing')
    const child = launch(root, { old: true, args: ['x'] })
    const { code, output, errors } = await outcome(child)
    expect([code, errors, output.split(' ')[1]]).toEqual([3, '', 'x\n'])
    expect(Number(output.split(' ')[0])).not.toBe(child.pid)
  })

  test('says what to do when there is no newer Node', async () => {
    const { code, errors } = await outcome(launch(await project(SAYS_ITS_ARGUMENTS), { old: true }))
    expect(code).toBe(1)
    expect(errors).toMatch(
      /needs Node 22\.18\.0 or newer, and this is Node 20\.20\.2.*\n.*npm ci.*without --ignore-scripts/,
    )
  })

  test('forwards SIGTERM, outlives SIGINT, and waits for the exit code', async () => {
    const root = await project(STOPS_ON_SIGTERM)
    await installNode(root, '.bin/node')
    const child = launch(root, { old: true })
    const result = outcome(child)
    await once(child.stdout!, 'data')
    child.kill('SIGINT')
    child.kill('SIGTERM')
    expect(await result).toEqual({ code: 5, signal: null, output: 'ready\nstopping\n', errors: '' })
  })

  test('ends by the signal that ended Scout', async () => {
    const root = await project(
      "console.log('ready')\nprocess.kill(process.pid, 'SIGKILL')\nsetInterval(() => {}, 1_000)",
    )
    await installNode(root, '.bin/node')
    expect(await outcome(launch(root, { old: true }))).toMatchObject({ code: null, signal: 'SIGKILL' })
  })
})
