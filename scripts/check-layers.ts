import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { parseSync, Visitor } from 'oxc-parser'

/** A file of the engine imports, at run time or for a type, from its own line or from the lines below it. */
const ENGINE = 'packages/triphase/src'
/** Fault proxy, worker processes and the like, for the tests of all packages. */
const TEST_SUPPORT = 'packages/triphase/test/support/'
const LINES = [
  ['testing/'],
  ['runner.ts', 'log.ts'],
  ['index.ts', 'engine.ts', 'worker.ts'],
  ['staged.ts', 'sweeps/', 'guard/'],
  ['queue/', 'maintenance/', 'notifiers/'],
  ['notifier.ts', 'plugin.ts'],
  ['store/'],
  ['*'], // every other file at the top: values and pure functions
]

/** What the sources of a package may import of this repository. Apps may import all of these. */
const PACKAGES: Record<string, string[]> = {
  'packages/triphase': [],
  'packages/dashboard': ['triphase'],
  'packages/files': ['triphase'],
  'packages/cli': ['triphase', '@triphase/dashboard', '@triphase/files'],
  'packages/embedded': [],
}

/** Where SQL is written, and the packages that hold none elsewhere. */
const STORES = [`${ENGINE}/store/`, 'packages/files/src/store/']
const NO_SQL = [ENGINE, 'packages/dashboard/src', 'packages/cli/src', 'packages/files/src']

/** Names that say nothing about what is inside. */
const EMPTY_NAMES = ['core', 'common', 'utils', 'helpers', 'lib', 'types', 'interfaces']

const SQL = [
  /^select\b[\s\S]*\bfrom\s/i,
  /^select\s+\w+(\.\w+)?\(/i,
  /^(with|with recursive)\s+\w+(\s*\([^)]*\))?\s+as\s*(not\s+)?(materialized\s*)?\(/i,
  /^insert\s+into\s/i,
  /^update\s+(only\s+)?\S+(\s+(as\s+)?\w+)?\s+set\s/i,
  /^delete\s+from\s/i,
  /^merge\s+into\s/i,
  /^truncate\s+(table\s+)?\S+(\s*,|\s+cascade|\s+restart|\s*;?$)/i,
  /^(create|alter|drop|comment on)\s+(or\s+replace\s+|unlogged\s+|unique\s+)*(table|index|schema|sequence|function|procedure|trigger|type|view|materialized|extension|role|database|domain|column)\b/i,
  /^(LISTEN|UNLISTEN|NOTIFY)\s/,
]

interface Import {
  specifier: string
  line: number
  /** Node loads the other file before this one runs. */
  runtime: boolean
}

interface Source {
  /** From the root, with forward slashes. */
  path: string
  imports: Import[]
  /** Lines on which a statement of SQL begins. */
  sql: number[]
  errors: string[]
}

/** Everything in the repository at `root` that breaks a rule of this file, one line each. */
export function checkLayers(root: string): string[] {
  const sources = ['packages', 'apps']
    .flatMap((folder) => sourcesIn(root, folder))
    .map((path) => read(root, path))
  const workspaces = workspaceNames(root)
  if (!sources.some(({ path }) => path.startsWith(`${ENGINE}/`)))
    return [`${ENGINE}: no sources here; nothing was checked`]
  return [
    ...sources.flatMap((source) => source.errors),
    ...badNames(sources),
    ...sources.flatMap((source) => source.imports.flatMap((one) => badImport(source.path, one, workspaces))),
    ...sources.flatMap((source) => badLine(source)),
    ...sources.flatMap((source) => badSql(source)),
    ...cycles(sources),
  ]
}

function sourcesIn(root: string, folder: string): string[] {
  if (!existsSync(join(root, folder))) return []
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`
    if (entry.isDirectory()) return /^(node_modules|dist|\..*)$/.test(entry.name) ? [] : sourcesIn(root, path)
    return /\.[cm]?[jt]sx?$/.test(entry.name) ? [path] : []
  })
}

function workspaceNames(root: string): Map<string, string> {
  const folders = ['packages', 'apps'].flatMap((parent) =>
    existsSync(join(root, parent)) ? readdirSync(join(root, parent)).map((name) => `${parent}/${name}`) : [],
  )
  const manifests = folders.filter((folder) => existsSync(join(root, folder, 'package.json')))
  return new Map(
    manifests.map((folder) => [
      JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')).name,
      folder,
    ]),
  )
}

function read(root: string, path: string): Source {
  const code = readFileSync(join(root, path), 'utf8')
  const { program, errors } = parseSync(path, code)
  const source: Source = {
    path,
    imports: [],
    sql: [],
    errors: errors.map(({ message }) => `${path}: ${message}`),
  }
  const line = (offset: number) => code.slice(0, offset).split('\n').length
  const add = (node: { start: number }, from: { value?: unknown } | null, runtime: boolean) => {
    if (typeof from?.value !== 'string') return
    source.imports.push({ specifier: from.value, line: line(node.start), runtime })
  }
  const literal = (node: { start: number }, value: string) => {
    const text = value.replace(/^(\s*--.*\n)*\s*/, '')
    if (SQL.some((statement) => statement.test(text))) source.sql.push(line(node.start))
  }
  new Visitor({
    // `import { type A } from` with nothing else in the braces still loads the file: only `import type` is erased whole.
    ImportDeclaration: (node) => add(node, node.source, node.importKind !== 'type'),
    ExportNamedDeclaration: (node) => add(node, node.source, node.exportKind !== 'type'),
    ExportAllDeclaration: (node) => add(node, node.source, node.exportKind !== 'type'),
    ImportExpression: (node) => add(node, node.source as { value?: unknown }, false),
    TSImportType: (node) => add(node, node.source, false),
    Literal: (node) => typeof node.value === 'string' && literal(node, node.value),
    TemplateLiteral: (node) => literal(node, node.quasis.map((part) => part.value.raw).join('x')),
  }).visit(program)
  return source
}

function badNames(sources: Source[]): string[] {
  const segments = sources.flatMap(({ path }) =>
    path.split('/').map((name, depth, all) => ({
      name: name.split('.')[0] ?? '',
      path: all.slice(0, depth + 1).join('/'),
    })),
  )
  const bad = segments.filter(({ name }) => EMPTY_NAMES.includes(name)).map(({ path }) => path)
  return [...new Set(bad)].map((path) => `${path}: a name that says nothing; name it after what it holds`)
}

function badImport(path: string, { specifier, line }: Import, workspaces: Map<string, string>): string[] {
  const at = `${path}:${line} imports ${specifier}`
  const [own, inSources] = [packageOf(path), path.startsWith(`${packageOf(path)}/src/`)]
  if (specifier.startsWith('.')) {
    const target = posix.join(posix.dirname(path), specifier)
    if (inSources && !target.startsWith(`${own}/src/`))
      return [`${at}: sources import by path only from their own src/`]
    const shared = !inSources && target.startsWith(TEST_SUPPORT)
    if (/^(packages|apps|bench)\//.test(target) && packageOf(target) !== own && !shared)
      return [`${at}: another package is imported by its name`]
    return []
  }
  const folder = workspaces.get(specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/'))
  if (!folder || folder === own || own.startsWith('apps/')) return []
  if (folder.startsWith('apps/')) return [`${at}: packages know nothing of apps`]
  if (!inSources) return []
  const allowed = PACKAGES[own]
  if (!allowed) return [`${at}: ${own} has no line in PACKAGES of scripts/check-layers.ts`]
  return allowed.some((name) => workspaces.get(name) === folder)
    ? []
    : [`${at}: ${own} may import ${allowed.join(' and ') || 'no package of this repository'}`]
}

function packageOf(path: string): string {
  return path.split('/', 2).join('/')
}

function badLine({ path, imports }: Source): string[] {
  if (!path.startsWith(`${ENGINE}/`)) return []
  const own = lineOf(path)
  if (own === undefined) return [`${path}: its folder has no line in LINES of scripts/check-layers.ts`]
  return imports.flatMap(({ specifier, line }) => {
    if (!specifier.startsWith('.')) return []
    const target = posix.join(posix.dirname(path), specifier)
    const other = target.startsWith(`${ENGINE}/`) ? lineOf(target) : undefined
    if (other === undefined || other >= own) return []
    return [`${path}:${line} imports ${specifier}, which stands above it (${LINES[other]?.join(' ')})`]
  })
}

function lineOf(path: string): number | undefined {
  const [first = '', ...rest] = path.slice(ENGINE.length + 1).split('/')
  const index = LINES.findIndex((line) => line.includes(rest.length > 0 ? `${first}/` : first))
  if (index >= 0) return index
  return rest.length > 0 ? undefined : LINES.length - 1
}

function badSql({ path, sql }: Source): string[] {
  const inStore = STORES.some((store) => path.startsWith(store))
  if (inStore || !NO_SQL.some((folder) => path.startsWith(`${folder}/`))) return []
  const store = STORES.find((one) => packageOf(one) === packageOf(path)) ?? STORES[0]
  return sql.map((line) => `${path}:${line} holds SQL; statements live in ${store}`)
}

/** Import cycles at run time: each is named once, by the files along it. */
function cycles(sources: Source[]): string[] {
  const imported = new Map(
    sources.map(({ path, imports }) => [
      path,
      imports
        .filter(({ runtime, specifier }) => runtime && specifier.startsWith('.'))
        .map(({ specifier }) => posix.join(posix.dirname(path), specifier)),
    ]),
  )
  const done = new Set<string>()
  const found: string[] = []
  const visit = (path: string, trail: string[]) => {
    if (trail.includes(path)) found.push([...trail.slice(trail.indexOf(path)), path].join(' -> '))
    if (done.has(path) || trail.includes(path)) return
    for (const next of imported.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of imported.keys()) visit(path, [])
  return found.map((cycle) => `import cycle: ${cycle}`)
}

if (process.argv[1] === import.meta.filename) {
  const findings = checkLayers(dirname(import.meta.dirname))
  for (const finding of findings) console.error(finding)
  if (findings.length > 0) process.exitCode = 1
}
