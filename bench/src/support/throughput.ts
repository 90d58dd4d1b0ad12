import type { Measured } from './benchmark.ts'
import { ConnectionWatch } from './connections.ts'
import type { Server } from './server.ts'
import type { Stage } from './stage.ts'
import type { Done } from './subject.ts'

/** Runs a program that works on so many jobs and measures what they cost: time, CPU, WAL, commits, connections. */
export async function measureJobs(
  stage: Stage,
  program: URL,
  order: Readonly<Record<string, unknown>> & { jobs: number },
): Promise<Measured> {
  const { server, database } = stage
  await stage.deserted()
  const child = stage.start(program, { ...order, url: stage.url })
  await child.heard('ready')
  const activity = await activityOf(server, database)
  const watch = new ConnectionWatch(server.control, database)
  const before = await costsOf(server)
  child.tell('go')
  const done = await child.heard<Done>('done')
  const after = await costsOf(server)
  const peaks = await watch.end()
  child.tell('noted')
  await child.ended
  await stage.deserted()
  const activityAfter = await activityOf(server, database)
  const per = (from: number | undefined, to: number | undefined, unit: number) =>
    from === undefined || to === undefined ? Number.NaN : ((to - from) * unit) / order.jobs
  return {
    figures: {
      seconds: done.seconds,
      jobsPerSecond: order.jobs / done.seconds,
      databaseCpuUs: per(before.cpuSeconds, after.cpuSeconds, 1e6),
      nodeCpuUs: (done.cpuSeconds * 1e6) / order.jobs,
      walBytes: per(before.walBytes, after.walBytes, 1),
      commits: per(activity.commits, activityAfter.commits, 1),
      busyConnectionSeconds: activityAfter.busySeconds - activity.busySeconds,
      connections: peaks.all,
      busyConnections: peaks.busy,
      ...done.figures,
    },
    faults: done.faults,
    notes: { connections: peaks.byApplication },
  }
}

async function costsOf(server: Server): Promise<{ walBytes: number; cpuSeconds: number | undefined }> {
  const { rows } = await server.control.query<{ bytes: string }>(
    `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS bytes`,
  )
  return { walBytes: Number(rows[0]?.bytes), cpuSeconds: server.cpuSeconds() }
}

/** Commits of a database, and the time that its connections were busy (running a statement or in a transaction). */
async function activityOf(
  server: Server,
  database: string,
): Promise<{ commits: number; busySeconds: number }> {
  const { rows } = await server.control.query<{ commits: number; busy: number }>(
    `SELECT xact_commit::float8 AS commits, (active_time + idle_in_transaction_time) / 1000 AS busy
     FROM pg_stat_database WHERE datname = $1`,
    [database],
  )
  return { commits: rows[0]?.commits ?? Number.NaN, busySeconds: rows[0]?.busy ?? Number.NaN }
}
