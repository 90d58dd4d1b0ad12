import { execFileSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

interface Manifest {
  name: string
  version: string
  exports: Record<string, unknown>
  bin?: Record<string, string>
  peerDependencies?: Record<string, string>
}

const root = join(import.meta.dirname, '../..')
const manifests = readdirSync(join(root, 'packages')).map(
  (folder): Manifest => JSON.parse(readFileSync(join(root, 'packages', folder, 'package.json'), 'utf8')),
)
const doors = manifests.flatMap(({ name, exports }) =>
  Object.keys(exports)
    .filter((door) => door !== './package.json')
    .map((door) => name + door.slice(1)),
)

// What a user has: an empty project, the packed packages, their peers, and a compiler.
let project: string

beforeAll(() => {
  project = realpathSync(mkdtempSync(join(tmpdir(), 'triphase-user-')))
  const tarballs = join(project, 'tarballs')
  mkdirSync(tarballs)
  npm(root, 'run', 'build')
  const selected = manifests.flatMap(({ name }) => ['--workspace', name])
  npm(root, 'pack', '--pack-destination', tarballs, ...selected)
  const packed = new Set(manifests.map(({ name }) => name))
  const peers = manifests
    .flatMap(({ peerDependencies }) => Object.entries(peerDependencies ?? {}))
    .filter(([name]) => !packed.has(name))
  writeFileSync(join(project, 'package.json'), JSON.stringify({ type: 'module', private: true }))
  npm(
    project,
    'install',
    ...readdirSync(tarballs).map((tarball) => join(tarballs, tarball)),
    ...peers.map(([name, range]) => `${name}@${range}`),
    '@types/node@24',
    '@types/pg@8',
  )
}, 60_000)

afterAll(() => rmSync(project, { recursive: true, force: true }))

test('every door of the packed packages opens in Node', () => {
  const program = `for (const door of ${JSON.stringify(doors)}) {
    await import(door)
    console.log(import.meta.resolve(door))
  }`
  const opened = run(project, process.execPath, '--input-type=module', '--eval', program).trim().split('\n')
  expect(opened).toHaveLength(doors.length)
  for (const url of opened) expect(url).toMatch(/\/node_modules\/.*\/dist\/.*\.js$/)
})

test('every door of the packed packages has types that hold in a strict project', () => {
  const imports = doors.map((door, index) => `export * as door${index} from '${door}'`)
  writeFileSync(join(project, 'user.ts'), imports.join('\n'))
  const compilerOptions = {
    strict: true,
    module: 'nodenext',
    target: 'es2023',
    noEmit: true,
    types: ['node'],
    skipLibCheck: false,
  }
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['user.ts'] }))
  run(project, process.execPath, join(root, 'node_modules/typescript/bin/tsc'), '-p', project)
})

test('every command of the packed packages says what it does', () => {
  const commands = manifests.flatMap(({ bin }) => Object.keys(bin ?? {}))
  expect(commands).toEqual(['triphase'])
  for (const command of commands) {
    expect(run(project, 'npx', command, '--help')).toMatch(new RegExp(`^Usage: ${command} `))
  }
})

test('the command line reads a config file of a project in TypeScript', () => {
  const config = `import { createEngine, type EngineOptions } from 'triphase'
    const options: EngineOptions = { url: 'postgres://localhost/app', schema: 'of_the_user' }
    export default createEngine(options)`
  writeFileSync(join(project, 'triphase.config.ts'), config)
  expect(run(project, 'npx', 'triphase', 'migrate', '--print')).toContain(
    'CREATE SCHEMA IF NOT EXISTS "of_the_user";',
  )
})

test('every package is packed with its licence, and without tests', () => {
  for (const { name } of manifests) {
    const files = readdirSync(join(project, 'node_modules', name))
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'dist', 'package.json', 'src']))
    expect(files).not.toContain('test')
    expect(readFileSync(join(project, 'node_modules', name, 'LICENSE'), 'utf8')).toBe(
      readFileSync(join(root, 'LICENSE'), 'utf8'),
    )
  }
})

test('all packages have one version', () => {
  expect(new Set(manifests.map(({ version }) => version)).size).toBe(1)
})

function npm(folder: string, ...args: string[]): void {
  run(folder, 'npm', ...args, '--prefer-offline', '--no-audit', '--no-fund')
}

function run(folder: string, program: string, ...args: string[]): string {
  try {
    return execFileSync(program, args, {
      cwd: folder,
      encoding: 'utf8',
      // Commands of packages are started by the Node that PATH names.
      env: { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH ?? ''}` },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 50_000,
    })
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${program} ${args.join(' ')} failed in ${folder}:\n${stdout}${stderr}`, { cause: error })
  }
}
