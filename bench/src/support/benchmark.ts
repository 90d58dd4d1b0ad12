import { availableParallelism, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { calm } from './process-times.ts'
import { printReport, reportOf, writeReport } from './report.ts'
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

/** A variant's figure divided by another's of the same round: what slows the machine down slows down both. */
export interface Ratio {
  of: string
  to: string
  figure: string
}

export interface Benchmark {
  name: string
  /** What is measured, in a line. */
  about: string
  variants: Variant[]
  columns: Column[]
  ratios: Ratio[]
  /** Adds figures that come from several variants of a round. */
  derive?: (round: Round) => void
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
  if (load > availableParallelism() / 2 && !options.calm) {
    console.error(`Something else is running here (load ${load.toFixed(1)}): trust only the ratios.`)
  }
  const variants = benchmark.variants.filter(({ name }) => name.includes(options.only))
  const server = await Server.start()
  const stopAndExit = () => void server.stop().finally(() => process.exit(130))
  process.once('SIGINT', stopAndExit).once('SIGTERM', stopAndExit)
  try {
    const rounds = await measureRounds(server, { ...benchmark, variants }, options)
    const report = reportOf({ ...benchmark, variants }, options, rounds, { load, postgres: server.version })
    printReport(benchmark, report)
    writeReport(report)
    if (report.faults.length > 0) process.exitCode = 1
  } finally {
    process.off('SIGINT', stopAndExit).off('SIGTERM', stopAndExit)
    await server.stop()
  }
}

async function measureRounds(
  server: Server,
  { variants, derive }: Benchmark,
  { repeats, calm: waitForCalm }: Options,
): Promise<Round[]> {
  const rounds: Round[] = []
  for (let number = 0; number < repeats; number++) {
    const round: Round = new Map()
    for (const variant of rotated(variants, number)) {
      progress(`${number + 1} of ${repeats}: ${variant.name}`)
      const measure = () => measureOnce(server, variant, { round: number, rounds: repeats })
      round.set(variant.name, await (waitForCalm ? undisturbed(measure) : measure()))
    }
    progress('')
    derive?.(round)
    rounds.push(round)
  }
  return rounds
}

async function measureOnce(server: Server, variant: Variant, turn: Turn): Promise<Measured> {
  const stage = await Stage.open(server)
  try {
    return await variant.measure(stage, turn)
  } finally {
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
