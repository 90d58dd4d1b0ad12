import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import Table from 'cli-table3'
import type { Benchmark, Column, Comparison, Options, Round } from './benchmark.ts'
import { chartOf } from './chart.ts'
import { SETTINGS } from './server.ts'
import { type Spread, spreadOf } from './spread.ts'

export const RESULTS: string = join(import.meta.dirname, '..', '..', 'results')

export interface Report {
  benchmark: string
  about: string
  quick: boolean
  /** The words by which variants were chosen. */
  only: string[]
  repeats: number
  date: string
  machine: Record<string, string | number>
  versions: Record<string, string>
  settings: Readonly<Record<string, string>>
  columns: readonly Column[]
  results: { variant: string; figures: Record<string, Spread>; notes: unknown[] }[]
  comparisons: (Comparison & { found: Spread })[]
  skipped: { variant: string; reason: string }[]
  faults: string[]
}

/** Puts the rounds of a benchmark together. */
export function reportOf(
  { name, about, variants, columns, comparisons, settings }: Benchmark,
  { quick, repeats, only }: Options,
  rounds: readonly Round[],
  circumstances: { load: number; postgres: string; skipped: Report['skipped'] },
): Report {
  return {
    benchmark: name,
    about,
    quick,
    only: only.toLowerCase().match(/[a-z0-9]+/g) ?? [],
    repeats,
    date: new Date().toISOString(),
    machine: machine(circumstances.load),
    versions: { ...versions(), postgres: circumstances.postgres },
    settings: { ...SETTINGS, ...settings },
    columns,
    results: variants.map(({ name: variant }) => ({
      variant,
      figures: figuresOf(variant, rounds),
      notes: rounds.flatMap((round) => round.get(variant)?.notes ?? []),
    })),
    comparisons: comparisons
      .map((each) => ({ ...each, found: spreadOf(rounds.map((round) => compared(round, each))) }))
      .filter(({ found }) => !Number.isNaN(found.median)),
    skipped: circumstances.skipped,
    faults: rounds.flatMap(faultsOf),
  }
}

function figuresOf(variant: string, rounds: readonly Round[]): Record<string, Spread> {
  const measured = rounds.map((round) => round.get(variant)?.figures ?? {})
  const names = [...new Set(measured.flatMap((figures) => Object.keys(figures)))]
  return Object.fromEntries(
    names.map((name) => [name, spreadOf(measured.map((figures) => figures[name] ?? Number.NaN))]),
  )
}

/** NaN where one of the two was not measured. */
function compared(round: Round, { of, to, figure }: Comparison): number {
  const figureOf = (variant: string) => round.get(variant)?.figures[figure] ?? Number.NaN
  if (to === undefined) return figureOf(of)
  const others = [to]
    .flat()
    .map(figureOf)
    .filter((other) => !Number.isNaN(other))
  return others.length > 0 ? figureOf(of) / Math.max(...others) : Number.NaN
}

function faultsOf(round: Round, index: number): string[] {
  return [...round].flatMap(([variant, { faults }]) =>
    faults.map((fault) => `${variant}, round ${index + 1}: ${fault}`),
  )
}

function machine(load: number): Report['machine'] {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()} ${process.arch}`,
    loadBefore: load,
    loadAfter: loadavg()[0] as number,
  }
}

const PACKAGES = ['pg', 'graphile-worker', 'pg-boss', 'bullmq']

function versions(): Record<string, string> {
  const require = createRequire(import.meta.url)
  const installed = join(RESULTS, '..', 'node_modules')
  const versionOf = (file: string): string => JSON.parse(readFileSync(file, 'utf8')).version
  return {
    node: process.version,
    triphase: versionOf(require.resolve('triphase/package.json')),
    ...Object.fromEntries(PACKAGES.map((name) => [name, versionOf(join(installed, name, 'package.json'))])),
  }
}

/** Prints the figures, the comparisons, and what is wrong. */
export function printReport(report: Report): void {
  const { columns } = report
  console.log(`${report.benchmark}${report.quick ? ' (quick)' : ''}: ${report.about}`)
  console.log(`median of ${report.repeats}, with minimum and maximum where they tell something\n`)
  const table = new Table({
    head: ['', ...columns.map(({ title }) => title)],
    style: { head: [], border: [] },
  })
  for (const { variant, figures } of report.results) {
    table.push([
      variant,
      ...columns.map((column) => ({
        content: cell(column, figures[column.figure]),
        hAlign: 'right' as const,
      })),
    ])
  }
  console.log(table.toString())
  for (const comparison of report.comparisons) console.log(inWords(comparison, report))
  for (const fault of report.faults) console.error(`WRONG: ${fault}`)
}

/** A figure as a table shows it; empty where there is none. */
export function cell({ places, spread }: Column, figure: Spread | undefined): string {
  if (figure === undefined || figure.median === null || Number.isNaN(figure.median)) return ''
  return spread ? withSpread(figure, places) : grouped(figure.median, places)
}

type Compared = Report['comparisons'][number]

/** What is compared with what. */
export function subjectOf({ of, to, figure }: Compared, columns: readonly Column[]): string {
  const others = [to ?? []].flat()
  const beside =
    others.length > 1 ? ` / the most of: ${others.join('; ')}` : others.map((name) => ` / ${name}`)
  const title = columns.find((column) => column.figure === figure)?.title ?? figure
  return `${of}${beside} (${title.replaceAll('\n', ' ')})`
}

export function measuredAs({ found }: Compared): string {
  return withSpread(found, 2)
}

/** Empty where there is no goal. */
export function goalOf({ atLeast, atMost }: Compared): string {
  const bounds = [
    ...(atLeast === undefined ? [] : [`at least ${atLeast}`]),
    ...(atMost === undefined ? [] : [`at most ${atMost}`]),
  ]
  return bounds.join(' and ')
}

export function reaches({ atLeast = -Infinity, atMost = Infinity, found }: Compared): boolean {
  return found.median >= atLeast && found.median <= atMost
}

/** A comparison in a line, with its goal and whether that is reached, which a quick run cannot tell. */
function inWords(comparison: Compared, { quick, columns }: Report): string {
  const goal = goalOf(comparison)
  const verdict = quick || !goal ? '' : `: ${reaches(comparison) ? 'reached' : 'MISSED'}`
  return `${subjectOf(comparison, columns)}: ${measuredAs(comparison)}${goal && `, goal ${goal}`}${verdict}`
}

function withSpread({ median, min, max, values }: Spread, places: number): string {
  const range = values.length > 1 ? ` (${grouped(min, places)} - ${grouped(max, places)})` : ''
  return `${grouped(median, places)}${range}`
}

/** Small figures keep a place more than large ones beside them. */
function grouped(value: number, places: number): string {
  const shown = places === 0 && value < 10 && !Number.isInteger(value) ? 1 : places
  return value.toLocaleString('en', { minimumFractionDigits: shown, maximumFractionDigits: shown })
}

/** Into bench/results; a quick run, or one of only some variants, leaves the results of a whole one alone. */
export async function writeReport(report: Report): Promise<void> {
  mkdirSync(RESULTS, { recursive: true })
  const name = [report.benchmark, ...report.only, ...(report.quick ? ['quick'] : [])].join('.')
  writeFileSync(join(RESULTS, `${name}.json`), `${JSON.stringify(report, null, 2)}\n`)
  writeFileSync(join(RESULTS, `${name}.svg`), await chartOf(report))
  console.log(`\nbench/results/${name}.json and .svg\n`)
}
