import type { Measured } from './benchmark.ts'
import type { Child } from './child.ts'
import { type ConnectionPeaks, ConnectionWatch } from './connections.ts'
import { machineCpuSeconds } from './process-times.ts'
import type { Stage } from './stage.ts'
import type { Done, Figures } from './subject.ts'

/** What has been used so far, at one moment. */
interface Meters {
  walBytes: number
  databaseCpu: number
  machineCpu: number
  /** Of the benchmark itself. */
  ownCpu: number
}

/** What a database's connections have done so far, those that have ended. */
interface Activity {
  commits: number
  busySeconds: number
}

interface Readings {
  done: Done
  meters: { before: Meters; after: Meters }
  activity: { before: Activity; after: Activity }
  peaks: ConnectionPeaks
}

interface Way {
  /** How many processes run the program. */
  processes?: number
  /** What happens while they do. */
  meanwhile?: (processes: readonly Child[]) => Promise<void>
}

/** Runs a program that works on so many jobs and measures what they cost: time, CPU, WAL, commits, connections. */
export async function measureJobs<Order extends { readonly jobs: number }>(
  stage: Stage,
  program: URL,
  order: Order,
  way: Way = {},
): Promise<Measured> {
  const readings = await readingsOf(stage, program, order, way)
  const figures = figuresOf(readings, order.jobs)
  if (stage.redis) for (const name of OF_POSTGRES) delete figures[name]
  return {
    figures: { ...figures, ...readings.done.figures },
    faults: readings.done.faults,
    notes: { connections: readings.peaks.byApplication },
  }
}

const OF_POSTGRES = [
  'walBytes',
  'commits',
  'busyConnectionSeconds',
  'connections',
  'busyConnections',
  'longestTransactionMs',
]

async function readingsOf(
  stage: Stage,
  program: URL,
  order: object,
  { processes = 1, meanwhile }: Way,
): Promise<Readings> {
  await stage.deserted()
  // Whatever a process does before it is ready to begin is not measured, nor are its connections from then.
  const activityBefore = await activityOf(stage)
  const children = Array.from({ length: processes }, () => stage.start(program, { url: stage.url, ...order }))
  for (const child of children) await child.heard('ready')
  const watch = new ConnectionWatch(stage.server.control, stage.database)
  const before = await metersOf(stage)
  for (const child of children) child.tell('go')
  const [all] = await Promise.all([
    Promise.all(children.map((child) => child.heard<Done>('done'))),
    meanwhile?.(children),
  ])
  const after = await metersOf(stage)
  const peaks = await watch.end()
  for (const child of children) child.tell('noted')
  for (const child of children) await child.ended
  await stage.deserted()
  const activity = { before: activityBefore, after: await activityOf(stage) }
  return { done: together(all), meters: { before, after }, activity, peaks }
}

function together(all: readonly Done[]): Done {
  return {
    seconds: Math.max(...all.map(({ seconds }) => seconds)),
    cpuSeconds: all.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
    figures: all[0]?.figures ?? {},
    faults: all.flatMap(({ faults }) => faults),
  }
}

function figuresOf({ done, meters, activity, peaks }: Readings, jobs: number): Figures {
  const used = (meter: keyof Meters) => meters.after[meter] - meters.before[meter]
  const others = used('machineCpu') - used('databaseCpu') - used('ownCpu') - done.cpuSeconds
  return {
    seconds: done.seconds,
    jobsPerSecond: jobs / done.seconds,
    databaseCpuUs: (used('databaseCpu') * 1e6) / jobs,
    nodeCpuUs: (done.cpuSeconds * 1e6) / jobs,
    walBytes: used('walBytes') / jobs,
    commits: (activity.after.commits - activity.before.commits) / jobs,
    busyConnectionSeconds: activity.after.busySeconds - activity.before.busySeconds,
    connections: peaks.all,
    busyConnections: peaks.busy,
    longestTransactionMs: peaks.transactionMs,
    othersCores: Math.max(0, others / done.seconds),
  }
}

async function metersOf({ server, redis }: Stage): Promise<Meters> {
  const { rows } = await server.control.query<{ bytes: string }>(
    `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes`,
  )
  const { user, system } = process.cpuUsage()
  return {
    walBytes: Number(rows[0]?.bytes),
    databaseCpu: redis ? redis.cpuSeconds() : server.cpuSeconds(),
    machineCpu: machineCpuSeconds(),
    ownCpu: (user + system) / 1e6,
  }
}

/** Commits, and the time that connections were busy: running a statement or in a transaction. */
async function activityOf({ server, database }: Stage): Promise<Activity> {
  const { rows } = await server.control.query<{ commits: number; busy: number }>(
    `SELECT xact_commit::float8 AS commits, (active_time + idle_in_transaction_time) / 1000 AS busy
     FROM pg_stat_database WHERE datname = $1`,
    [database],
  )
  return { commits: rows[0]?.commits ?? Number.NaN, busySeconds: rows[0]?.busy ?? Number.NaN }
}
