import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'

/** A step is one or more commands, run one after the other. */
export interface Step {
  name: string
  commands: string[][]
}

const root = dirname(import.meta.dirname)
const packages = readdirSync(join(root, 'packages')).map((name) => `packages/${name}`)
const script = (...command: string[]): string[] => [process.execPath, ...process.execArgv, ...command]

const steps: Step[] = [
  {
    name: 'types',
    commands: [
      ...['.', ...packages].map((folder) => ['tsc', '-p', folder]),
      ...(existsSync(join(root, 'bench/src'))
        ? [script('scripts/bench.mjs', '--install'), ['tsc', '-p', 'bench']]
        : []),
    ],
  },
  { name: 'biome', commands: [['biome', 'check', '--error-on-warnings', '--diagnostic-level=warn']] },
  { name: 'unused', commands: [['knip']] },
  { name: 'build', commands: [['npm', 'run', '--silent', 'build']] },
  {
    name: 'doors',
    commands: packages.flatMap((folder) => [
      ['publint', 'run', folder, '--strict', '--pack', 'npm'],
      ['attw', '--pack', folder, '--profile', 'esm-only'],
    ]),
  },
  { name: 'layers', commands: [script('scripts/check-layers.ts')] },
  {
    name: 'schema',
    commands: [
      script('packages/triphase/scripts/embed-migrations.ts', '--check'),
      script('scripts/check-schema.ts'),
    ],
  },
  { name: 'docs', commands: [script('scripts/check-docs.ts')] },
  { name: 'bench', commands: benchmarks().map((name) => script('scripts/bench.mjs', name, '--quick')) },
]

/** Every program of bench/ but the one that writes the page. */
function benchmarks(): string[] {
  const folder = join(root, 'bench/src')
  const files = existsSync(folder) ? readdirSync(folder) : []
  return files.filter((file) => file.endsWith('.ts') && file !== 'report.ts').map((file) => file.slice(0, -3))
}

/** Runs the steps in order, one line for each; the output only of what fails. Answers with the names of these steps. */
export async function runSteps(chosen: Step[], print: (text: string) => void): Promise<string[]> {
  const failed: string[] = []
  for (const { name, commands } of chosen) {
    const start = performance.now()
    const outputs: string[] = []
    for (const command of commands) {
      const { ok, output } = await run(command)
      if (!ok) outputs.push(`\n$ ${command.join(' ')}\n${output}`)
    }
    const seconds = ((performance.now() - start) / 1000).toFixed(1)
    print(`${outputs.length > 0 ? 'FAILED' : 'ok    '} ${name.padEnd(8)}${seconds.padStart(6)} s`)
    if (outputs.length > 0) failed.push(name)
    for (const output of outputs) print(output)
  }
  return failed
}

function run([program = '', ...args]: string[]): Promise<{ ok: boolean; output: string }> {
  const PATH = `${join(root, 'node_modules', '.bin')}${delimiter}${process.env.PATH ?? ''}`
  return new Promise((done) => {
    const child = spawn(program, args, {
      cwd: root,
      env: { ...process.env, PATH },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (output += text))
    child.on('error', (error) => done({ ok: false, output: `${program} does not start: ${error.message}` }))
    child.on('close', (code, signal) => {
      if (signal) output += `\nended by ${signal}`
      done({ ok: code === 0, output })
    })
  })
}

/** `verify.ts [STEP...]` */
async function main(names: string[]): Promise<void> {
  const unknown = names.filter((name) => !steps.some((step) => step.name === name))
  if (unknown.length > 0)
    return fail(`no such step: ${unknown.join(', ')}; the steps: ${steps.map(({ name }) => name).join(', ')}`)
  const failed = await runSteps(
    names.length > 0 ? steps.filter(({ name }) => names.includes(name)) : steps,
    console.log,
  )
  if (failed.length > 0) fail(`failed: ${failed.join(', ')}`)
}

function fail(message: string): void {
  console.error(message)
  process.exitCode = 1
}

if (process.argv[1] === import.meta.filename) await main(process.argv.slice(2))
