import type { GuardOrder, TurnCost, Work } from './guard/process.ts'
import { optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Child } from './support/child.ts'
import { spreadOf } from './support/spread.ts'
import type { Stage } from './support/stage.ts'
import { installed } from './systems/contestant.ts'
import { triphase } from './systems/peers.ts'

const options = optionsOf()
/** Two processes of one program differ by as much as the guard costs, so several pairs of them are measured. */
const PAIRS = options.quick ? 1 : 2
/** Of four turns: without, with, with, without. Whoever has just run, runs quicker than who has been idle. */
const BLOCKS = options.quick ? 2 : 6
/** The first thousands of jobs run code that is not compiled yet, of which the guard has its part. In turns. */
const WARM_UP = options.quick ? 1 : 6

interface Costs {
  off: TurnCost
  on: TurnCost
}

/** Processes with and without the guard take turns on one database. */
function guardCost(name: string, work: Work, count: number): Variant {
  return {
    name,
    async measure(stage) {
      await installed(stage, triphase('', {}))
      const order = { url: stage.url, work }
      const [counted, faults]: [Costs[], string[]] = [[], []]
      for (let pair = 0; pair < PAIRS; pair++) {
        const costs = await blocksOfPair(stage, order, pair, options.quick ? Math.ceil(count / 20) : count)
        counted.push(...costs)
        faults.push(...costs.flatMap(({ off, on }) => [...off.faults, ...on.faults]))
      }
      const cpu = ratios(counted.map((pair) => pair.on.cpuUs / pair.off.cpuUs))
      const wall = ratios(counted.map((pair) => pair.on.wallUs / pair.off.wallUs))
      return {
        figures: {
          offUs: median(counted.map((pair) => pair.off.cpuUs)),
          onUs: median(counted.map((pair) => pair.on.cpuUs)),
          moreUs: median(counted.map((pair) => pair.on.cpuUs - pair.off.cpuUs)),
          cpu: cpu.median,
          cpuWithin: cpu.within,
          wall: wall.median,
          wallWithin: wall.within,
        },
        faults,
        notes: { cpuRatios: counted.map((pair) => pair.on.cpuUs / pair.off.cpuUs) },
      }
    },
  }
}

async function blocksOfPair(
  stage: Stage,
  order: Omit<GuardOrder, 'guard'>,
  pair: number,
  count: number,
): Promise<Costs[]> {
  // The first one leads, which costs it something: in every other pair it is the one with the guard.
  const guards = pair % 2 === 0 ? (['off', 'error'] as const) : (['error', 'off'] as const)
  const children = new Map<GuardOrder['guard'], Child>()
  for (const guard of guards) {
    const child = await ready(stage, { ...order, guard })
    children.set(guard, child)
    await costOf(child, count * WARM_UP)
  }
  const [off, on] = [children.get('off') as Child, children.get('error') as Child]
  const blocks: Costs[] = []
  for (let block = 0; block < BLOCKS; block++) {
    const begins = await costOf(off, count)
    const between = [await costOf(on, count), await costOf(on, count)] as const
    blocks.push({ off: mean(begins, await costOf(off, count)), on: mean(...between) })
  }
  for (const child of [off, on]) {
    child.tell('turn', 0)
    await child.ended
  }
  return blocks
}

function mean(one: TurnCost, other: TurnCost): TurnCost {
  return {
    cpuUs: (one.cpuUs + other.cpuUs) / 2,
    wallUs: (one.wallUs + other.wallUs) / 2,
    faults: [...one.faults, ...other.faults],
  }
}

async function ready(stage: Stage, order: GuardOrder): Promise<Child> {
  const child = stage.start(new URL('./guard/process.ts', import.meta.url), order, ['--expose-gc'])
  await child.heard('ready')
  return child
}

function costOf(child: Child, count: number): Promise<TurnCost> {
  child.tell('turn', count)
  return child.heard<TurnCost>('cost')
}

function median(values: readonly number[]): number {
  return spreadOf(values).median
}

/** A standard deviation is so many median deviations, and a median's error so much larger than a mean's, of normal values. */
const [OF_DEVIATION, OF_MEDIAN, IN_95_OF_100] = [1.4826, 1.2533, 1.96]

/** The median of ratios, and within how much of it, in percent, the true one lies with 95 % confidence. */
function ratios(values: readonly number[]): { median: number; within: number } {
  const middle = median(values)
  const deviation = median(values.map((value) => Math.abs(value - middle))) * OF_DEVIATION
  const error = (deviation * OF_MEDIAN * IN_95_OF_100) / Math.sqrt(values.length)
  return { median: middle, within: (error * 100) / middle }
}

const PLAIN = 'plain no-op jobs'
const STAGED = 'staged no-op jobs'

await runBenchmark(
  {
    name: 'guard',
    about: `CPU and time of a process with the guard (mode error) beside those of one without it, ${PAIRS} pairs of processes, ${2 * BLOCKS} turns of each`,
    variants: [
      guardCost(PLAIN, 'plain', 10_000),
      guardCost(STAGED, 'staged', 1_500),
      guardCost('engine.transaction, without a database', 'transaction', 50_000),
    ],
    columns: [
      { figure: 'offUs', title: 'without,\nCPU µs', places: 1 },
      { figure: 'onUs', title: 'with,\nCPU µs', places: 1 },
      { figure: 'moreUs', title: 'more,\nCPU µs', places: 2, spread: true },
      { figure: 'cpu', title: 'CPU, with\nby without', places: 3, spread: true },
      { figure: 'cpuWithin', title: 'within a round\n± %', places: 1 },
      { figure: 'wall', title: 'time, with\nby without', places: 3, spread: true },
      { figure: 'wallWithin', title: 'within a round,\n± %', places: 1 },
    ],
    comparisons: [
      { of: PLAIN, figure: 'cpu', atMost: 1.02 },
      { of: PLAIN, figure: 'wall', atMost: 1.02 },
      { of: STAGED, figure: 'cpu', atMost: 1.02 },
      { of: STAGED, figure: 'wall', atMost: 1.02 },
    ],
  },
  options,
)
