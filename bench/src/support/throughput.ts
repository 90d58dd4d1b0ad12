import type { Measured } from './benchmark.ts'
import { type ConnectionPeaks, ConnectionWatch } from './connections.ts'
import { machineCpuSeconds } from './process-times.ts'
import type { Server } from './server.ts'
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

/** Runs a program that works on so many jobs and measures what they cost: time, CPU, WAL, commits, connections. */
export async function measureJobs(
  stage: Stage,
  program: URL,
  order: Readonly<Record<string, unknown>> & { jobs: number },
): Promise<Measured> {
  const readings = await readingsOf(stage, program, order)
  return {
    figures: { ...figuresOf(readings, order.jobs), ...readings.done.figures },
    faults: readings.done.faults,
    notes: { connections: readings.peaks.byApplication },
  }
}

async function readingsOf(stage: Stage, program: URL, order: object): Promise<Readings> {
  const { server, database } = stage
  await stage.deserted()
  const child = stage.start(program, { ...order, url: stage.url })
  await child.heard('ready')
  const activityBefore = await activityOf(server, database)
  const watch = new ConnectionWatch(server.control, database)
  const before = await metersOf(server)
  child.tell('go')
  const done = await child.heard<Done>('done')
  const after = await metersOf(server)
  const peaks = await watch.end()
  child.tell('noted')
  await child.ended
  await stage.deserted()
  const activity = { before: activityBefore, after: await activityOf(server, database) }
  return { done, meters: { before, after }, activity, peaks }
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
    othersCores: Math.max(0, others / done.seconds),
  }
}

async function metersOf(server: Server): Promise<Meters> {
  const { rows } = await server.control.query<{ bytes: string }>(
    `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes`,
  )
  const { user, system } = process.cpuUsage()
  return {
    walBytes: Number(rows[0]?.bytes),
    databaseCpu: server.cpuSeconds(),
    machineCpu: machineCpuSeconds(),
    ownCpu: (user + system) / 1e6,
  }
}

/** Commits, and the time that connections were busy: running a statement or in a transaction. */
async function activityOf(server: Server, database: string): Promise<Activity> {
  const { rows } = await server.control.query<{ commits: number; busy: number }>(
    `SELECT xact_commit::float8 AS commits, (active_time + idle_in_transaction_time) / 1000 AS busy
     FROM pg_stat_database WHERE datname = $1`,
    [database],
  )
  return { commits: rows[0]?.commits ?? Number.NaN, busySeconds: rows[0]?.busy ?? Number.NaN }
}
