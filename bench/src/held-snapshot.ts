import { type Measured, optionsOf, runBenchmark, type Variant } from './support/benchmark.ts'
import type { Stage } from './support/stage.ts'
import { CLAIM_WORDS, COUNTING_STATEMENTS, countStatements, statementFigures } from './support/statements.ts'
import { measureJobs } from './support/throughput.ts'
import { type Contestant, countFaults, differs, fill, installed, needsOf } from './systems/contestant.ts'
import { BEST_GRAPHILE_WORKER, BEST_PG_BOSS, floor, triphaseAt } from './systems/peers.ts'

const options = optionsOf()
const scale = options.quick ? 100 : 1

const TRIPHASE = triphaseAt(50)
const MANY = 300_000 / scale
const VERY_MANY = 3_000_000 / scale
const WINDOW_SECONDS = options.quick ? 0.1 : 5

/** Enqueues and drains while a transaction that was open before keeps vacuum from removing anything. */
function drain(contestant: Contestant, jobs: number): Variant {
  return {
    ...needsOf(contestant),
    name: jobs === MANY ? contestant.name : `${contestant.name}, ${jobs.toLocaleString('en')} jobs`,
    long: jobs !== MANY,
    async measure(stage) {
      const order = await installed(stage, contestant)
      const end = await heldSnapshot(stage)
      await fill(order, jobs)
      const program = new URL('./programs/drain.ts', import.meta.url)
      const measured = await measureJobs(stage, program, { ...order, jobs, windowSeconds: WINDOW_SECONDS })
      await end()
      const faults = await countFaults(order, { live: 0, done: jobs })
      return { ...measured, faults: [...measured.faults, ...faults] }
    },
  }
}

async function heldSnapshot(stage: Stage): Promise<() => Promise<unknown>> {
  const client = await stage.connect()
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ')
  await client.query('SELECT count(*) FROM pg_class')
  return () => client.query('COMMIT')
}

const FEW_WAITING = 'claims, 1,000 available'
const MANY_WAITING = 'claims, 3,000,000 in history and 1,000,000 available'
const CLAIMED = options.quick ? 2_000 : 50_000

/** How fast claims are, in the server, beside so many finished and waiting jobs. */
function claims(name: string, measureClaims: (stage: Stage) => Promise<string[]>): Variant {
  return {
    name,
    long: true,
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
  const [history, waiting] = [VERY_MANY, 1_000_000 / scale]
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

const FLOOR = floor('by 500, history', { batch: 500 })
const LONG_TRIPHASE = `${TRIPHASE.name}, ${VERY_MANY.toLocaleString('en')} jobs`

await runBenchmark(
  {
    name: 'held-snapshot',
    about: `${MANY.toLocaleString('en')} no-op jobs, unless a line says otherwise, enqueued and drained while a REPEATABLE READ transaction is open: the first and the last ${WINDOW_SECONDS} s`,
    variants: [
      drain(TRIPHASE, MANY),
      drain(FLOOR, MANY),
      drain(BEST_GRAPHILE_WORKER, MANY),
      drain(BEST_PG_BOSS, MANY),
      drain(TRIPHASE, VERY_MANY),
      claims(FEW_WAITING, fewWaiting),
      claims(MANY_WAITING, manyWaiting),
    ],
    columns: [
      { figure: 'lastByFirst', title: 'last window\nby first', places: 2, spread: true },
      { figure: 'firstWindow', title: 'first window,\njobs/s', places: 0 },
      { figure: 'lastWindow', title: 'last window,\njobs/s', places: 0 },
      { figure: 'jobsPerSecond', title: 'jobs/s', places: 0 },
      {
        figure: 'claimedPerServerSecond',
        title: 'jobs claimed in\n1 s of the server',
        places: 0,
        spread: true,
      },
      { figure: 'othersCores', title: 'cores that\nothers used', places: 2 },
    ],
    comparisons: [
      { of: TRIPHASE.name, figure: 'lastByFirst', atLeast: 0.9 },
      { of: LONG_TRIPHASE, figure: 'lastByFirst', atLeast: 0.9 },
      { of: MANY_WAITING, to: FEW_WAITING, figure: 'claimedPerServerSecond', atLeast: 0.9 },
    ],
    settings: options.only === '' ? {} : COUNTING_STATEMENTS,
  },
  options,
)
