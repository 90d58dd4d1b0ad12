import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { checkDocs } from '../../scripts/check-docs.ts'
import { checkLayers } from '../../scripts/check-layers.ts'
import { runSteps } from '../../scripts/verify.ts'

const repository = join(import.meta.dirname, '../..')
const made: string[] = []

afterEach(() => {
  for (const folder of made.splice(0)) rmSync(folder, { recursive: true, force: true })
})

/** A folder with these files; a manifest is made for each package and app. */
function tree(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'triphase-checks-'))
  made.push(root)
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  return root
}

describe('the layer rule', () => {
  const MANIFESTS = Object.fromEntries(
    [
      ['packages/triphase', 'triphase'],
      ['packages/dashboard', '@triphase/dashboard'],
      ['packages/cli', '@triphase/cli'],
      ['packages/embedded', '@triphase/embedded'],
      ['packages/stranger', '@triphase/stranger'],
      ['apps/scout', 'scout'],
    ].map(([folder, name]) => [`${folder}/package.json`, JSON.stringify({ name })]),
  )
  const findings = (files: Record<string, string>) =>
    checkLayers(tree({ ...MANIFESTS, 'packages/triphase/src/job.ts': 'export const job = 1', ...files }))

  test('holds in what stands on its own line or above', () => {
    expect(
      findings({
        'packages/triphase/src/index.ts': `export { job } from './job.ts'\nexport type { Engine } from './engine.ts'`,
        'packages/triphase/src/engine.ts': `import { claim } from './store/claim.ts'\nexport interface Engine { claim: typeof claim }`,
        'packages/triphase/src/store/claim.ts': `import { job } from '../job.ts'\nexport const claim = \`SELECT \${job} FROM triphase.job\``,
        'packages/triphase/src/testing/index.ts': `import { job } from '../index.ts'\nexport const perform = job`,
        'packages/dashboard/src/index.ts': `import { job } from 'triphase'\nexport const page = job`,
        'packages/triphase/test/job.test.ts': `import '@triphase/embedded'\nimport '../src/job.ts'`,
        'apps/scout/src/main.ts': `import 'triphase'\nimport '@triphase/cli'`,
      }),
    ).toEqual([])
  })

  test.each([
    [
      'a value from above',
      'packages/triphase/src/job.ts',
      `import { claim } from './store/claim.ts'\nclaim()`,
    ],
    [
      'a type from above',
      'packages/triphase/src/store/claim.ts',
      `import type { Engine } from '../engine.ts'\nexport type E = Engine`,
    ],
    [
      'an inline type from above',
      'packages/triphase/src/job.ts',
      `export type E = import('./engine.ts').Engine`,
    ],
    ['an export from above', 'packages/triphase/src/notifier.ts', `export * from './notifiers/polling.ts'`],
    ['a late import from above', 'packages/triphase/src/queue/pool.ts', `await import('../runner.ts')`],
    ['a door from the engine', 'packages/triphase/src/engine.ts', `import './log.ts'`],
    ['a new folder', 'packages/triphase/src/pumps/pump.ts', 'export {}'],
    ['a path out of the sources', 'packages/triphase/src/job.ts', `import '../test/support.ts'`],
    ['another package by its path', 'packages/cli/test/cli.test.ts', `import '../../triphase/src/job.ts'`],
    ['an app from a package', 'packages/triphase/test/job.test.ts', `import 'scout'`],
    ['an app by its path', 'packages/triphase/test/job.test.ts', `import '../../../apps/scout/src/main.ts'`],
    [
      'a benchmark from a package',
      'packages/triphase/test/job.test.ts',
      `import '../../../bench/src/drain.ts'`,
    ],
    ['the embedded server from the engine', 'packages/triphase/src/job.ts', `import '@triphase/embedded'`],
    [
      'the engine from the embedded server',
      'packages/embedded/src/index.ts',
      `import type { Job } from 'triphase'\nexport type J = Job`,
    ],
    ['a door of a package to its right', 'packages/dashboard/src/index.ts', `import '@triphase/cli/testing'`],
    ['a package that the rule does not know', 'packages/stranger/src/index.ts', `import 'triphase'`],
  ])('refuses %s', (_, path, text) => {
    expect(findings({ [path]: text })).toEqual([expect.stringContaining(path)])
  })

  test.each(['core', 'common', 'utils', 'helpers', 'lib', 'types', 'interfaces'])(
    'refuses the name %s',
    (name) => {
      expect(
        findings({ [`packages/triphase/src/queue/${name}.ts`]: '', [`apps/scout/${name}/images.ts`]: '' }),
      ).toHaveLength(2)
    },
  )

  test.each([
    '`SELECT id FROM triphase.job`',
    `'select pg_notify($1, $2)'`,
    '`\n  WITH due AS (\n SELECT 1) SELECT 2`',
    `\`INSERT INTO \${table} VALUES (1)\``,
    `\`update \${table}\n set state = 1\``,
    `'DELETE FROM job'`,
    `'create unique index on job (id)'`,
    '`ALTER TABLE job ADD COLUMN x text`',
    '`TRUNCATE job, answer`',
    '`\n-- The reason.\nSELECT id FROM job`',
    `\`LISTEN \${channel}\``,
  ])('refuses SQL outside the store: %s', (literal) => {
    const text = `const table = 'job'\nconst channel = table\nexport const sql = (query: (sql: string) => void) => query(${literal})\n`
    const path = 'packages/triphase/src/queue/pool.ts'
    expect(findings({ [path]: text })).toEqual([expect.stringContaining(`${path}:3 holds SQL`)])
    expect(findings({ 'packages/triphase/src/store/pool.ts': text })).toEqual([])
  })

  test.each([
    `'Update the schema and set its owner'`,
    `'delete'`,
    `'commit'`,
    `'listen'`,
    `\`with \${1} jobs\``,
    `'create a queue'`,
  ])('takes prose for prose: %s', (literal) =>
    expect(findings({ 'packages/triphase/src/job.ts': `export const text = ${literal}` })).toEqual([]),
  )

  test('refuses an import cycle at run time, and names its files once', () => {
    const cycle = findings({
      'packages/triphase/src/queue/a.ts': `import { b } from './b.ts'\nexport const a = b`,
      'packages/triphase/src/queue/b.ts': `export * from './c.ts'`,
      'packages/triphase/src/queue/c.ts': `import { a, type A } from './a.ts'\nexport const b = a`,
    })
    expect(cycle).toEqual([
      expect.stringMatching(/^import cycle: \S+a\.ts -> \S+b\.ts -> \S+c\.ts -> \S+a\.ts$/),
    ])
  })

  test('allows a cycle of types, which is gone at run time, and of late imports', () => {
    expect(
      findings({
        'apps/scout/src/a.ts': `import type { B } from './b.ts'\nexport type A = B | import('./c.ts').C`,
        'apps/scout/src/b.ts': `import './a.ts'\nexport const b = () => import('./c.ts')`,
        'apps/scout/src/c.ts': `import './b.ts'\nexport type C = 1`,
      }),
    ).toEqual([])
  })

  test('refuses a file that it cannot read, and a repository without sources', () => {
    expect(findings({ 'apps/scout/src/a.ts': 'import {' })).toEqual([
      expect.stringContaining('apps/scout/src/a.ts'),
    ])
    expect(checkLayers(tree(MANIFESTS))).toHaveLength(1)
  })
})

describe('the examples of the pages', () => {
  const BASE = {
    'tsconfig.base.json':
      '{ "compilerOptions": { "strict": true, "module": "nodenext", "target": "es2023", "types": ["node"] } }',
    'package.json': '{ "type": "module" }',
  }
  const check = (files: Record<string, string>) => {
    const root = tree({ ...BASE, ...files })
    symlinkSync(join(repository, 'node_modules'), join(root, 'node_modules'))
    const result = checkDocs(root)
    expect(readdirSync(root).filter((name) => name.startsWith('.'))).toEqual([])
    return result
  }

  test('compile as modules of a user, each block by itself', () => {
    const block = '```ts\nimport pg from "pg"\nconst pool: pg.Pool = new pg.Pool()\nawait pool.end()\n```\n'
    const text = '```text\nnot code at all\n```\n~~~md\n```ts\nnonsense here\n```\n~~~\n'
    const result = check({ 'README.md': block + text + block, 'packages/triphase/README.md': block })
    expect(result).toEqual({ examples: 3, errors: [] })
  })

  test('may be continued', () => {
    const page = '# A\n\n```ts\nconst a = 1\n```\ntext\n```ts continued\nexport const b: number = a\n```\n'
    expect(check({ 'docs/deep/page.md': page })).toEqual({ examples: 1, errors: [] })
  })

  test('are refused by page and line', () => {
    const page =
      '# A\n\n```ts\nconst a = 1\n```\ntext\n1. item\n    ```ts continued\n    const b: string = a\n    ```\n```ts\nb()\n```\n'
    expect(check({ 'docs/page.md': page }).errors).toEqual([
      expect.stringMatching(/^docs\/page\.md\(9,11\): error TS2322/),
      expect.stringMatching(/^docs\/page\.md\(12,1\): error TS2304/),
    ])
    expect(
      check({ 'README.md': '```ts\nimport { nothing } from "triphase"\nimport "missing"\n```\n' }).errors,
    ).toHaveLength(2)
  })

  test.each(['```ts continued\n```', '```typescript\n```', '```ts nocheck\n```', '```ts\nconst a = 1\n'])(
    'are fenced right: %j',
    (page) => {
      expect(check({ 'README.md': page }).errors).toEqual([expect.stringContaining('README.md')])
    },
  )
})

describe('verify', () => {
  const node = (code: string) => [process.execPath, '-e', code]

  test('prints one line for each step, the output only of what failed, and runs them all', async () => {
    const lines: string[] = []
    const failed = await runSteps(
      [
        { name: 'good', commands: [node('console.log("quiet")')] },
        {
          name: 'bad',
          commands: [
            node('console.log("out"); console.error("err"); process.exit(3)'),
            node('console.log("not run")'),
          ],
        },
        { name: 'killed', commands: [node('process.kill(process.pid, "SIGKILL")')] },
        { name: 'absent', commands: [['triphase-no-such-program']] },
        { name: 'last', commands: [node('')] },
      ],
      (line) => lines.push(line),
    )
    expect(failed).toEqual(['bad', 'killed', 'absent'])
    const text = lines.join('\n')
    expect(text).toMatch(/^ok +good +\d+\.\d s$/m)
    expect(text).toMatch(/^FAILED bad +\d+\.\d s$/m)
    expect(text).toContain('\nout\nerr\n')
    expect(text).toContain('SIGKILL')
    expect(text).toContain('triphase-no-such-program does not start')
    expect(text).not.toMatch(/quiet/)
    expect(lines.at(-1)).toMatch(/^ok +last/)
  })

  test('names its steps when it is asked for another one', () => {
    const { status, stderr } = spawnSync(
      process.execPath,
      [join(repository, 'scripts/verify.ts'), 'nothing'],
      { encoding: 'utf8' },
    )
    expect(status).toBe(1)
    expect(stderr).toContain('no such step: nothing; the steps: types, biome')
  })
})

// Plays an old Node by taking from the real one what tells it that TypeScript runs.
describe('the launcher', () => {
  const OLD = '--no-experimental-strip-types'
  const launch = (root: string, path: string, ...args: string[]) =>
    spawnSync(process.execPath, [OLD, join(root, 'scripts/node.mjs'), ...args], {
      encoding: 'utf8',
      env: { ...process.env, PATH: path },
    })
  const copy = () => {
    const root = tree({
      'program.ts':
        'const args: string[] = process.argv.slice(2)\nconsole.log(process.env.PATH, ...args)\nprocess.exit(7)',
    })
    cpSync(join(repository, 'scripts/node.mjs'), join(root, 'scripts/node.mjs'))
    return root
  }
  const install = (folder: string, text: string) => {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'node'), text)
    chmodSync(join(folder, 'node'), 0o755)
    return folder
  }

  test('takes the Node that npm installed, passes on arguments and the exit code, and puts it first in PATH', () => {
    const root = copy()
    const bin = install(join(root, 'node_modules/node/bin'), `#!/bin/sh\nexec '${process.execPath}' "$@"\n`)
    const { status, stdout, stderr } = launch(
      root,
      '/usr/bin:/bin',
      join(root, 'program.ts'),
      'a b',
      '--flag',
    )
    expect(stderr).toBe('')
    expect(stdout.trim()).toBe(`${bin}:/usr/bin:/bin a b --flag`)
    expect(status).toBe(7)
  })

  test('takes another one in PATH, not one that is broken', () => {
    const root = copy()
    const broken = install(join(root, 'broken'), 'not a program')
    const old = install(join(root, 'old'), `#!/bin/sh\nexec '${process.execPath}' ${OLD} "$@"\n`)
    const good = install(join(root, 'good'), `#!/bin/sh\nexec '${process.execPath}' "$@"\n`)
    const { status, stdout } = launch(
      root,
      [broken, old, good, '/bin'].join(delimiter),
      join(root, 'program.ts'),
    )
    expect(stdout).toContain(good)
    expect(status).toBe(7)
  })

  test('says what to do where there is none', () => {
    const root = copy()
    const { status, stderr } = launch(root, join(root, 'nowhere'), join(root, 'program.ts'))
    expect(status).toBe(1)
    expect(stderr).toContain('needs Node 22.18 or later')
    expect(stderr).toContain('npm rebuild node --ignore-scripts=false')
  })
})

describe('the benchmark runner', () => {
  const bench = (root: string, ...args: string[]) => {
    cpSync(join(repository, 'scripts/bench.mjs'), join(root, 'scripts/bench.mjs'))
    return spawnSync(process.execPath, [join(root, 'scripts/bench.mjs'), ...args], { encoding: 'utf8' })
  }
  const LOCK = {
    lockfileVersion: 3,
    packages: {
      '': { dependencies: { part: 'file:part' } },
      'node_modules/part': { resolved: 'part', link: true },
      part: {},
    },
  }
  const BENCH = {
    'bench/package.json': '{ "type": "module", "dependencies": { "part": "file:part" } }',
    'bench/package-lock.json': JSON.stringify(LOCK),
    'bench/part/package.json': '{ "name": "part", "type": "module", "exports": "./part.js" }',
    'bench/part/part.js': `export const part = 'part'`,
    'bench/src/drain.ts': `import { part } from 'part'\nconsole.log('ran with', part, ...process.argv.slice(2))\nprocess.exit(5)`,
    'bench/src/report/table.ts': '',
  }

  test('lists the benchmarks that there are', () => {
    const { status, stderr } = bench(tree(BENCH), 'fill')
    expect(status).toBe(1)
    expect(stderr).toBe(
      'There is no benchmark "fill". npm run bench -- NAME [--quick], where NAME is one of: drain\n',
    )
    expect(bench(tree({})).stderr).toContain('none yet')
  })

  test('installs what the lockfile says when it is missing or older, and passes on options and the exit code', () => {
    const root = tree(BENCH)
    const installs = () => {
      const { status, stdout } = bench(root, 'drain', '--quick')
      expect(stdout).toContain('ran with part --quick')
      expect(status).toBe(5)
      return /^added 1 package/m.test(stdout)
    }
    expect(installs()).toBe(true)
    expect(installs()).toBe(false)
    const later = Date.now() / 1000 + 60
    utimesSync(join(root, 'bench/package-lock.json'), later, later)
    expect(installs()).toBe(true)
  })

  test('does not run on packages that could not be installed', () => {
    const root = tree({ ...BENCH, 'bench/package-lock.json': '{' })
    const { status, stdout, stderr } = bench(root, 'drain', '--quick')
    expect(stderr).toContain('could not be installed')
    expect(stdout).not.toContain('ran')
    expect(status).not.toBe(0)
  })
})
