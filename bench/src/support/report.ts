import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join } from 'node:path'
import Table from 'cli-table3'
import type { Benchmark, Column, Options, Ratio, Round } from './benchmark.ts'
import { SETTINGS } from './server.ts'
import { type Spread, spreadOf } from './spread.ts'

const BENCH = join(import.meta.dirname, '..', '..')

export interface Report {
  benchmark: string
  about: string
  quick: boolean
  repeats: number
  date: string
  machine: Record<string, string | number>
  versions: Record<string, string>
  settings: Readonly<Record<string, string>>
  results: { variant: string; figures: Record<string, Spread>; notes: unknown[] }[]
  ratios: (Ratio & { ratio: Spread })[]
  faults: string[]
}

/** Puts the rounds of a benchmark together. */
export function reportOf(
  { name, about, variants, ratios }: Benchmark,
  { quick, repeats }: Options,
  rounds: readonly Round[],
  circumstances: { load: number; postgres: string },
): Report {
  return {
    benchmark: name,
    about,
    quick,
    repeats,
    date: new Date().toISOString(),
    machine: machine(circumstances.load),
    versions: { ...versions(), postgres: circumstances.postgres },
    settings: SETTINGS,
    results: variants.map(({ name: variant }) => ({
      variant,
      figures: figuresOf(variant, rounds),
      notes: rounds.flatMap((round) => round.get(variant)?.notes ?? []),
    })),
    ratios: ratios
      .filter(({ of, to }) => rounds[0]?.has(of) && rounds[0].has(to))
      .map((ratio) => ({ ...ratio, ratio: spreadOf(rounds.map((round) => ratioIn(round, ratio))) })),
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

function ratioIn(round: Round, { of, to, figure }: Ratio): number {
  return (round.get(of)?.figures[figure] ?? Number.NaN) / (round.get(to)?.figures[figure] ?? Number.NaN)
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

function versions(): Record<string, string> {
  const require = createRequire(import.meta.url)
  const versionOf = (file: string) => JSON.parse(readFileSync(file, 'utf8')).version as string
  return {
    node: process.version,
    triphase: versionOf(require.resolve('triphase/package.json')),
    pg: versionOf(require.resolve('pg/package.json')),
  }
}

/** Prints the figures, the ratios, and what is wrong. */
export function printReport({ columns }: Benchmark, report: Report): void {
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
  for (const { of, to, figure, ratio } of report.ratios) {
    console.log(`${of} / ${to} (${figure}): ${withSpread(ratio, 2)}`)
  }
  for (const fault of report.faults) console.error(`WRONG: ${fault}`)
}

function cell({ places, spread }: Column, figure: Spread | undefined): string {
  if (figure === undefined || Number.isNaN(figure.median)) return ''
  return spread ? withSpread(figure, places) : grouped(figure.median, places)
}

function withSpread({ median, min, max, values }: Spread, places: number): string {
  const range = values.length > 1 ? ` (${grouped(min, places)} - ${grouped(max, places)})` : ''
  return `${grouped(median, places)}${range}`
}

function grouped(value: number, places: number): string {
  return value.toLocaleString('en', { minimumFractionDigits: places, maximumFractionDigits: places })
}

/** Into bench/results; a quick run leaves the results of a whole one alone. */
export function writeReport(report: Report): void {
  const folder = join(BENCH, 'results')
  mkdirSync(folder, { recursive: true })
  const file = `${report.benchmark}${report.quick ? '.quick' : ''}.json`
  writeFileSync(join(folder, file), `${JSON.stringify(report, null, 2)}\n`)
  console.log(`\nbench/results/${file}`)
}
