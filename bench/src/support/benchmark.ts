import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { findProgram, type Program } from './installed.ts'
import { calm } from './process-times.ts'
import { printReport, type Report, reportOf, writeReport } from './report.ts'
import { Server } from './server.ts'
import { Stage } from './stage.ts'
import type { Figures } from './subject.ts'

/** What one measurement found. */
export interface Measured {
  figures: Figures
  /** Jobs lost, done twice or missing from history, and whatever else makes the measurement worthless. */
  faults: string[]
  /** Kept in the JSON, not in the table. */
  notes?: Record<string, unknown>
}

/** One of the things that a benchmark compares. */
export interface Variant {
  name: string
  measure: (stage: Stage, turn: Turn) => Promise<Measured>
  /** Skipped, and said so, where this is not installed. */
  needs?: Program
  /** Takes so long that it is measured only when `--only` names it. */
  long?: boolean
}

/** Which of the rounds it is, from 0. */
export interface Turn {
  round: number
  rounds: number
}

export interface Column {
  figure: string
  title: string
  /** Places after the decimal point. */
  places: number
  /** Shows minimum and maximum too. */
  spread?: boolean
}

/**
 * A variant's figure beside another's of the same round: what slows the machine down slows down both. With a bound it
 * is a goal, which is reported as reached or missed and never fails a run.
 */
export interface Comparison {
  of: string
  figure: string
  /** Of several, the largest. Without it, the figure itself is meant. */
  to?: string | readonly string[]
  atLeast?: number
  atMost?: number
}

export interface Benchmark {
  name: string
  /** What is measured, in a line. */
  about: string
  variants: readonly Variant[]
  columns: readonly Column[]
  comparisons: readonly Comparison[]
  /** Adds figures that come from several variants of a round. */
  derive?: (round: Round) => void
  /** Settings of Postgres besides those of all benchmarks. */
  settings?: Record<string, string>
  /** Measures all variants of a round at the same time: for what leaves the machine idle. */
  together?: boolean
}

export interface Options {
  quick: boolean
  repeats: number
  /** Only variants whose names contain it. */
  only: string
  /** Waits until the machine is quiet, and measures again what others disturbed. */
  calm: boolean
}

/** The options of the command line. */
export function optionsOf(args: readonly string[] = process.argv.slice(2)): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      quick: { type: 'boolean', default: false },
      repeats: { type: 'string' },
      only: { type: 'string', default: '' },
      calm: { type: 'boolean', default: false },
    },
  })
  const repeats = Number(values.repeats ?? (values.quick ? 1 : 3))
  if (!(Number.isInteger(repeats) && repeats >= 1)) throw new Error('--repeats: a whole number of at least 1')
  return { quick: values.quick, repeats, only: values.only, calm: values.calm }
}

export type Round = Map<string, Measured>

/**
 * Measures every variant `repeats` times, each in a database and a process of its own, and reports. Variants take
 * turns, and each round begins with another one, so that none always comes first after a pause or last on a hot machine.
 */
export async function runBenchmark(benchmark: Benchmark, options: Options): Promise<void> {
  const load = loadavg()[0] as number
  if (load > availableParallelism() / 2 && !options.calm && !options.quick) {
    console.error(`Something else is running here (load ${load.toFixed(1)}): trust only the ratios.`)
  }
  const { chosen, skipped } = choose(benchmark.variants, options.only)
  for (const { variant, reason } of skipped) console.error(`Skipped: ${variant}, because ${reason}.`)
  const server = await Server.start(benchmark.settings)
  const stopAndExit = () => void server.stop().finally(() => process.exit(130))
  process.once('SIGINT', stopAndExit).once('SIGTERM', stopAndExit)
  try {
    const measured = { ...benchmark, variants: chosen }
    const rounds = await measureRounds(server, measured, options)
    const report = reportOf(measured, options, rounds, { load, postgres: server.version, skipped })
    printReport(report)
    await writeReport(report)
    if (report.faults.length > 0) process.exitCode = 1
  } finally {
    process.off('SIGINT', stopAndExit).off('SIGTERM', stopAndExit)
    await server.stop()
  }
}

function choose(
  variants: readonly Variant[],
  only: string,
): { chosen: Variant[]; skipped: Report['skipped'] } {
  const wanted = variants.filter(({ name, long }) => name.includes(only) && !(long && only === ''))
  const isMissing = ({ needs }: Variant) => needs !== undefined && findProgram(needs) === undefined
  return {
    chosen: wanted.filter((variant) => !isMissing(variant)),
    skipped: wanted
      .filter(isMissing)
      .map(({ name, needs }) => ({ variant: name, reason: `${needs} is not installed` })),
  }
}

async function measureRounds(
  server: Server,
  { variants, derive, together }: Benchmark,
  { repeats, quick, calm: waitForCalm }: Options,
): Promise<Round[]> {
  const rounds: Round[] = []
  for (let number = 0; number < repeats; number++) {
    const round: Round = new Map()
    const measure = async (variant: Variant) => {
      progress(`${number + 1} of ${repeats}: ${variant.name}`)
      const turn = { round: number, rounds: repeats }
      const limitMinutes = quick ? LIMIT_MINUTES.quick : LIMIT_MINUTES.whole
      const once = () => measureOnce(server, variant, turn, limitMinutes)
      round.set(variant.name, await (waitForCalm ? undisturbed(once) : once()))
    }
    if (together) await Promise.all(variants.map(measure))
    else for (const variant of rotated(variants, number)) await measure(variant)
    progress('')
    derive?.(round)
    rounds.push(round)
  }
  return rounds
}

/** Nothing takes half as long: a job that is lost must not be waited for in vain. */
const LIMIT_MINUTES = { quick: 2, whole: 30 }

async function measureOnce(
  server: Server,
  variant: Variant,
  turn: Turn,
  limitMinutes: number,
): Promise<Measured> {
  const stage = await Stage.open(server)
  const limit = Promise.withResolvers<never>()
  const tooLong = () => limit.reject(new Error(`${variant.name}: no end after ${limitMinutes} minutes`))
  const timer = setTimeout(tooLong, limitMinutes * 60_000)
  try {
    return await Promise.race([variant.measure(stage, turn), limit.promise])
  } finally {
    clearTimeout(timer)
    await stage.close()
  }
}

/** Cores that others may use meanwhile; an API that is called is one of these others. */
const QUIET_CORES = 0.15
const LONGEST_WAIT_MS = 30_000
const MOST_TRIES = 5

async function undisturbed(measure: () => Promise<Measured>): Promise<Measured> {
  for (let tries = 1; ; tries++) {
    await calm(QUIET_CORES, LONGEST_WAIT_MS)
    const measured = await measure()
    const { othersCores = 0 } = measured.figures
    if (othersCores <= QUIET_CORES || measured.faults.length > 0 || tries === MOST_TRIES) return measured
  }
}

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
}

function rotated<Item>(items: readonly Item[], by: number): Item[] {
  const shift = by % Math.max(1, items.length)
  return [...items.slice(shift), ...items.slice(0, shift)]
}
