import { type Measured, optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { CLAIM_WORDS, COUNTING_STATEMENTS, countStatements, statementFigures } from './support/statements.ts'
import { measureJobs } from './support/throughput.ts'
import { countFaults, differs, fill, installed } from './systems/contestant.ts'
import { triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const scale = options.quick ? 100 : 1
const TRIPHASE = triphaseAt(50)

const FEW_WAITING = '1,000 available'
const MANY_WAITING = '3,000,000 in history, 1,000,000 available'
const CLAIMED = options.quick ? 2_000 : 50_000

/** How fast claims are, in the server, beside so many finished and waiting jobs. */
function claims(name: string, measureClaims: (stage: Stage) => Promise<string[]>): Variant {
  return {
    name,
    async measure(stage): Promise<Measured> {
      const faults = await measureClaims(stage)
      const { rows, serverMs } = await statementFigures(stage, ...CLAIM_WORDS)
      return {
        figures: { claimedPerServerSecond: (rows * 1_000) / serverMs },
        faults: [...faults, ...(rows < CLAIMED ? [`only ${rows} jobs were claimed`] : [])],
      }
    },
  }
}

async function fewWaiting(stage: Stage): Promise<string[]> {
  const order = await installed(stage, TRIPHASE)
  const worker = stage.start(new URL('./programs/run.ts', import.meta.url), order)
  await worker.heard('working')
  await countStatements(stage)
  const batch = 1_000
  for (let from = 0; from < CLAIMED; from += batch) {
    await fill(order, batch, from)
    await worker.heard('thousand')
  }
  worker.tell('end')
  await worker.ended
  return countFaults(order, { live: 0, done: CLAIMED })
}

async function manyWaiting(stage: Stage): Promise<string[]> {
  const order = await installed(stage, TRIPHASE)
  const [history, waiting] = [3_000_000 / scale, 1_000_000 / scale]
  await fill(order, 1)
  await measureJobs(stage, new URL('./programs/drain.ts', import.meta.url), { ...order, jobs: 1 })
  await multiply(stage, 'triphase.job_history', { id: '-g' }, history - 1)
  await fill(order, 1)
  await multiply(stage, 'triphase.job', { id: 'DEFAULT', position: 'DEFAULT' }, waiting - 1)
  // What autovacuum would have done long before there are as many.
  await stage.query('VACUUM ANALYZE')
  await countStatements(stage)
  const worker = stage.start(new URL('./programs/run.ts', import.meta.url), order)
  await worker.heard('working')
  for (let acked = 0; acked < CLAIMED; acked += 1_000) await worker.heard('thousand')
  worker.tell('end')
  await worker.ended
  const [found] = await stage.query<{ jobs: number }>(
    `SELECT ((SELECT count(*) FROM triphase.job_history) + (SELECT count(*) FROM triphase.job))::int AS jobs`,
  )
  return differs('jobs, live and finished', found?.jobs, history + waiting)
}

/** Writes so many copies of a table's only row, with other values for some columns (`g`: the number of the copy). */
async function multiply(
  stage: Stage,
  table: string,
  values: Record<string, string>,
  copies: number,
): Promise<void> {
  const columns = await stage.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
    [table],
  )
  const names = columns.map(({ name }) => name).filter((name) => values[name] !== 'DEFAULT')
  await stage.query(
    `INSERT INTO ${table} (${names.join(', ')})
     SELECT ${names.map((name) => values[name] ?? name).join(', ')}
     FROM ${table}, generate_series(1, ${copies}) AS g`,
  )
}

await runBenchmark(
  {
    name: 'claims',
    about:
      'time in the server for claims, while jobs are drained beside few and beside many finished and waiting ones',
    variants: [claims(FEW_WAITING, fewWaiting), claims(MANY_WAITING, manyWaiting)],
    columns: [
      {
        figure: 'claimedPerServerSecond',
        title: 'jobs claimed in\n1 s of the server',
        places: 0,
        spread: true,
      },
    ],
    comparisons: [{ of: MANY_WAITING, to: FEW_WAITING, figure: 'claimedPerServerSecond', atLeast: 0.9 }],
    settings: COUNTING_STATEMENTS,
  },
  options,
)
