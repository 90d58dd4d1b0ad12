import { optionsOf, runBenchmark } from './support/benchmark.ts'
import type { Memory } from './support/memory.ts'
import { countFaults, fill, installed } from './systems/contestant.ts'
import { triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const FEW = options.quick ? 1_000 : 100_000
const MANY = FEW * 10
const CONTESTANT = triphaseAt(50)

await runBenchmark(
  {
    name: 'memory',
    about: `MiB of one process after ${FEW.toLocaleString('en')} and ${MANY.toLocaleString('en')} no-op jobs and a forced collection, median of five`,
    variants: [
      {
        name: CONTESTANT.name,
        async measure(stage) {
          const order = await installed(stage, CONTESTANT)
          const program = new URL('./memory/worker.ts', import.meta.url)
          const worker = stage.start(program, { ...order, counts: [FEW, MANY] }, ['--expose-gc'])
          await fill(order, FEW)
          const few = await worker.heard<Memory>('memory')
          await fill(order, MANY - FEW, FEW)
          const many = await worker.heard<Memory>('memory')
          const faults = await worker.heard<string[]>('faults')
          await worker.ended
          return {
            figures: {
              rssAfterFew: few.rss,
              rssAfterMany: many.rss,
              heapAfterFew: few.heap,
              heapAfterMany: many.heap,
              manyByFew: many.rss / few.rss,
            },
            faults: [...faults, ...(await countFaults(order, { live: 0, done: MANY }))],
          }
        },
      },
    ],
    columns: [
      { figure: 'manyByFew', title: 'RSS after many\nby after few', places: 3, spread: true },
      { figure: 'rssAfterFew', title: 'RSS\nafter few', places: 1, spread: true },
      { figure: 'rssAfterMany', title: 'RSS\nafter many', places: 1, spread: true },
      { figure: 'heapAfterFew', title: 'heap\nafter few', places: 1 },
      { figure: 'heapAfterMany', title: 'heap\nafter many', places: 1 },
    ],
    comparisons: [{ of: CONTESTANT.name, figure: 'manyByFew', atMost: 1.1 }],
  },
  options,
)
