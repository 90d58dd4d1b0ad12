import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const PAGES = ['*.md', 'docs/**/*.md', 'packages/*/*.md', 'apps/*/*.md']

/** One module: a block of a page and the blocks that continue it. */
interface Example {
  page: string
  /** As many lines as the page up to its last block, so that an error's line is the page's line. */
  lines: string[]
}

/** Type-checks each ```ts block of the pages as a module of a user's project, in a folder of `root`; the errors, one line each. */
export function checkDocs(root: string): { examples: number; errors: string[] } {
  const folder = mkdtempSync(join(root, '.docs-check-'))
  const pages = globSync(PAGES, { cwd: root })
    .filter((page) => !page.includes('node_modules'))
    .sort()
  const found = pages.map((page) => examplesIn(page, readFileSync(join(root, page), 'utf8')))
  const examples = found.flatMap((each) => each.examples)
  try {
    write(folder, root, examples)
    const errors = examples.length > 0 ? compile(root, folder, examples) : []
    return { examples: examples.length, errors: [...found.flatMap((each) => each.errors), ...errors] }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function examplesIn(page: string, text: string): { examples: Example[]; errors: string[] } {
  const examples: Example[] = []
  const errors: string[] = []
  let block: { end: RegExp; lines: string[] | undefined } | undefined
  for (const [index, line] of text.split('\n').entries()) {
    if (block) {
      if (block.end.test(line)) block = undefined
      else if (block.lines) block.lines[index] = line
      continue
    }
    const fence = /^\s*(`{3,}|~{3,})\s*(.*?)\s*$/.exec(line)
    if (!fence) continue
    const [, marks = '', info = ''] = fence
    block = { end: new RegExp(`^\\s*${marks}+\\s*$`), lines: undefined }
    if (!/^(ts|typescript|tsx|mts)\b/.test(info)) continue
    const at = `${page}(${index + 1},1)`
    if (info === 'ts') examples.push({ page, lines: [] })
    else if (info !== 'ts continued')
      errors.push(`${at}: fence an example as "ts" or "ts continued", not "${info}"`)
    else if (examples.length === 0) errors.push(`${at}: there is no block before it to continue`)
    block.lines = examples.at(-1)?.lines
  }
  if (block) errors.push(`${page}: a fenced block is not closed`)
  return { examples, errors }
}

function write(folder: string, root: string, examples: Example[]): void {
  const base = existsSync(join(root, 'tsconfig.base.json')) ? { extends: '../tsconfig.base.json' } : {}
  const compilerOptions = { moduleDetection: 'force', noEmit: true }
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({ ...base, compilerOptions, include: ['*.ts'] }),
  )
  for (const [index, { lines }] of examples.entries()) {
    writeFileSync(join(folder, `${index}.ts`), Array.from(lines, (line) => line ?? '').join('\n'))
  }
}

function compile(root: string, folder: string, examples: Example[]): string[] {
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
  const { stdout, stderr, status } = spawnSync(process.execPath, [tsc, '-p', folder, '--pretty', 'false'], {
    cwd: folder,
    encoding: 'utf8',
  })
  if (status === 0) return []
  const errors = `${stdout}${stderr}`.trim() || `tsc ended with ${status}`
  return errors
    .split('\n')
    .map((line) => line.replace(/^(\d+)\.ts(?=\()/, (_, index) => examples[index]?.page ?? ''))
}

if (process.argv[1] === import.meta.filename) {
  const { examples, errors } = checkDocs(dirname(import.meta.dirname))
  if (examples === 0) errors.push('There is no example in any page: nothing was checked.')
  for (const error of errors) console.error(error)
  if (errors.length > 0) process.exitCode = 1
}
