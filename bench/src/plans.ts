import { optionsOf, type Round, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import {
  ACK_WORDS,
  CLAIM_WORDS,
  COUNTING_STATEMENTS,
  countStatements,
  statementFigures,
} from './support/statements.ts'
import { measureJobs } from './support/throughput.ts'
import { type ContestantOrder, countFaults, fill, installed } from './systems/contestant.ts'
import { triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const jobs = options.quick ? 2_000 : 60_000
const CONTESTANT = triphaseAt(50)

/** What the planner knows of the tables while they are drained. */
type Knowledge = (stage: Stage, order: ContestantOrder) => Promise<unknown>

const analyze = (stage: Stage) => stage.query('ANALYZE')

const KNOWLEDGE: Record<string, Knowledge> = {
  'no statistics': (_stage, order) => fill(order, jobs),
  'fresh statistics': async (stage, order) => {
    await fill(order, jobs)
    await analyze(stage)
  },
  'statistics of empty tables': async (stage, order) => {
    await analyze(stage)
    await fill(order, jobs)
  },
  'statistics of full tables, then all but a thousandth was deleted': async (stage, order) => {
    await fill(order, jobs)
    await analyze(stage)
    await stage.query(`DELETE FROM triphase.job WHERE (input ->> 'n')::int >= $1`, [jobs / 1_000])
    await fill(order, jobs - jobs / 1_000, jobs / 1_000)
  },
}

function measured(name: string, prepare: Knowledge): Variant {
  return {
    name,
    async measure(stage) {
      const order = await installed(stage, CONTESTANT)
      await prepare(stage, order)
      await countStatements(stage)
      const drained = await measureJobs(stage, new URL('./programs/drain.ts', import.meta.url), {
        ...order,
        jobs,
      })
      const claims = await statementFigures(stage, ...CLAIM_WORDS)
      const acks = await statementFigures(stage, ...ACK_WORDS)
      const faults = [
        ...drained.faults,
        ...(await countFaults(order, { live: 0, done: jobs })),
        ...(claims.calls === 0 ? ['no claims were found'] : []),
        ...(acks.calls === 0 ? ['no acks were found'] : []),
      ]
      const figures = {
        claimUs: (claims.serverMs * 1_000) / jobs,
        ackUs: (acks.serverMs * 1_000) / jobs,
      }
      return { ...drained, figures: { ...drained.figures, ...figures }, faults }
    },
  }
}

/** How much of the speed of the fastest is left. */
function derive(round: Round): void {
  const all = [...round.values()].map(({ figures }) => figures)
  for (const figure of ['claimUs', 'ackUs']) {
    const fastest = Math.min(...all.map((figures) => figures[figure] ?? Number.NaN))
    for (const figures of all) figures[`${figure}OfFastest`] = fastest / (figures[figure] ?? Number.NaN)
  }
}

await runBenchmark(
  {
    name: 'plans',
    about: `time in the server for claims and acks of ${jobs.toLocaleString('en')} no-op jobs, autovacuum off`,
    variants: Object.entries(KNOWLEDGE).map(([name, prepare]) => measured(name, prepare)),
    columns: [
      { figure: 'claimUs', title: 'claim\nµs/job', places: 1, spread: true },
      { figure: 'ackUs', title: 'ack\nµs/job', places: 1, spread: true },
      { figure: 'claimUsOfFastest', title: 'speed of\nfastest claim', places: 2 },
      { figure: 'ackUsOfFastest', title: 'speed of\nfastest ack', places: 2 },
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0 },
    ],
    comparisons: Object.keys(KNOWLEDGE).flatMap((of) =>
      ['claimUsOfFastest', 'ackUsOfFastest'].map((figure) => ({ of, figure, atLeast: 0.5 })),
    ),
    settings: { ...COUNTING_STATEMENTS, autovacuum: 'off' },
    derive,
  },
  options,
)
