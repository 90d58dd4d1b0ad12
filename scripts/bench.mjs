// npm run bench -- NAME [--quick]: runs bench/src/NAME.ts on the packages of bench/'s own lockfile, which it installs when
// they are missing or older than the lockfile. What benchmarks share stands in folders below bench/src. NAME `all` means
// one after the other, `report` writes the results into docs/.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'

const bench = join(dirname(import.meta.dirname), 'bench')
const [name, ...options] = process.argv.slice(2)
const known = existsSync(join(bench, 'src')) ? readdirSync(join(bench, 'src')) : []
const programs = known.filter((file) => file.endsWith('.ts')).map((file) => file.slice(0, -'.ts'.length))
const benchmarks = programs.filter((program) => program !== 'report')
const names = [...programs, ...(benchmarks.length > 1 ? ['all'] : [])]

if (name === '--install') install()
else if (name === 'all') main(benchmarks)
else if (programs.includes(name)) main([name])
else {
  const problem = name ? `There is no benchmark "${name}".` : 'Which benchmark?'
  console.error(
    `${problem} npm run bench -- NAME [--quick], where NAME is one of: ${names.join(', ') || '(there is none yet)'}`,
  )
  process.exitCode = 1
}

function main(chosen) {
  install()
  if (process.exitCode) return console.error('The packages of bench/ could not be installed.')
  for (const program of chosen) {
    run(process.execPath, [...process.execArgv, join('src', `${program}.ts`), ...options])
  }
}

function install() {
  if (isOutdated()) run('npm', ['ci', '--no-audit', '--no-fund'])
}

function isOutdated() {
  const installed = join(bench, 'node_modules', '.package-lock.json')
  if (!existsSync(installed)) return true
  return statSync(join(bench, 'package-lock.json')).mtimeMs > statSync(installed).mtimeMs
}

function run(program, args) {
  const { status, error } = spawnSync(program, args, { cwd: bench, stdio: 'inherit' })
  if (error) console.error(`${program} does not start: ${error.message}`)
  process.exitCode ||= status ?? 1
}
