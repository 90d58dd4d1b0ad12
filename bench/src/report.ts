// Writes the results of whole runs into the pages that have a place for them, between <!-- results: NAME --> and
// <!-- end -->, and the charts that these pages show beside them.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { cell, goalOf, measuredAs, RESULTS, type Report, reaches, subjectOf } from './support/report.ts'

const DOCS = join(import.meta.dirname, '..', '..', 'docs')
const MARKED = /(<!-- results: ([\w.-]+) -->\n)[\s\S]*?(<!-- end -->)/g
const CHART = /\]\(([\w.-]+\.svg)\)/g

for (const name of ['performance.md', 'incident.md']) {
  const page = join(DOCS, name)
  const text = readFileSync(page, 'utf8')
  writeFileSync(page, text.replaceAll(MARKED, results))
  for (const [, chart = ''] of text.matchAll(CHART)) {
    if (existsSync(join(RESULTS, chart))) copyFileSync(join(RESULTS, chart), join(DOCS, chart))
  }
}

function results(old: string, begin: string, name: string, end: string): string {
  const file = join(RESULTS, `${name}.json`)
  if (!existsSync(file)) {
    console.error(`bench/results has no ${name}.json: what the page says of it stays.`)
    return old
  }
  console.log(name)
  return `${begin}\n${markdown(JSON.parse(readFileSync(file, 'utf8')))}\n\n${end}`
}

function markdown(report: Report): string {
  return [about(report), ...figures(report), ...goals(report), ...footnotes(report)].join('\n')
}

function about({ about, repeats }: Report): string {
  return `${about[0]?.toUpperCase()}${about.slice(1)}. Median of ${repeats}, with minimum and maximum.\n`
}

function figures({ columns, results }: Report): string[] {
  const titles = columns.map(({ title }) => title.replaceAll('\n', ' '))
  return table(
    ['', ...titles],
    results.map(({ variant, figures }) => [
      variant,
      ...columns.map((column) => cell(column, figures[column.figure])),
    ]),
  )
}

function goals({ comparisons, columns }: Report): string[] {
  if (comparisons.length === 0) return []
  const rows = comparisons.map((comparison) => {
    const goal = goalOf(comparison)
    const verdict = reaches(comparison) ? 'yes' : '**no**'
    return [subjectOf(comparison, columns), measuredAs(comparison), goal, goal && verdict]
  })
  return ['', ...table(['', 'measured', 'goal', 'reached'], rows)]
}

function footnotes({ machine, versions, date, skipped, faults }: Report): string[] {
  const { cpu, cores, memoryGiB, system } = machine
  const software = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    '',
    `${date.slice(0, 10)}; ${cores} cores of ${cpu}, ${memoryGiB} GiB, ${system}; ${software.join(', ')}.`,
    ...skipped.map(({ variant, reason }) => `Without ${variant}: ${reason}.`),
    ...faults.map((fault) => `**Wrong:** ${fault}`),
  ]
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map((_, index) => (index === 0 ? '---' : '--:'))), ...rows.map(line)]
}
