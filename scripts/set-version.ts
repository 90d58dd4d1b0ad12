import { execFileSync } from 'node:child_process'
import { globSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** `npm run set-version -- 0.2.0`: all manifests get this version, and so do the packages' dependencies on each other. */

type Dependencies = Record<string, string>
interface Manifest {
  name: string
  version: string
  [kind: `${string}ependencies`]: Dependencies | undefined
}

const root = dirname(import.meta.dirname)
const version = process.argv[2] ?? ''
if (!/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)) {
  console.error(`"${version}" is not a version. npm run set-version -- 0.2.0`)
  process.exit(1)
}

const paths = globSync(['package.json', 'packages/*/package.json', 'apps/*/package.json'], { cwd: root }).map(
  (path) => join(root, path),
)
const manifests = paths.map((path): Manifest => JSON.parse(readFileSync(path, 'utf8')))
const names = new Set(manifests.map(({ name }) => name))

for (const [index, manifest] of manifests.entries()) {
  manifest.version = version
  for (const kind of [
    'dependencies',
    'devDependencies',
    'peerDependencies',
    'optionalDependencies',
  ] as const) {
    const dependencies = manifest[kind] ?? {}
    for (const name of Object.keys(dependencies))
      if (names.has(name) && dependencies[name] !== '*') dependencies[name] = version
  }
  writeFileSync(paths[index] ?? '', `${JSON.stringify(manifest, null, 2)}\n`)
}
execFileSync('npm', ['install', '--package-lock-only', '--ignore-scripts'], { cwd: root, stdio: 'inherit' })
