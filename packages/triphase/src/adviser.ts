import { TriphaseError } from './errors.ts'

/** What the jobs of one kind of process ask of a connection pool. */
export interface ConnectionLoad {
  /** Jobs that run at the same time in one process: the sum of its queues' concurrencies. */
  concurrency: number
  /** Processes that run them. Default 1. */
  processes?: number
  /** How long the slow call takes, in milliseconds, in the mean. No connection is held meanwhile. */
  callMs: number
  /** How long a job holds a connection of the application, in milliseconds, in the mean and over all its checkouts. */
  holdMs: number
  /** How often a job checks out a connection of the application. Default 2: `prepare` and `commit`. */
  checkouts?: number
  /** How long a job keeps a connection of the engine busy, in milliseconds: its answer, its share of claim and ack. Default 2. */
  engineHoldMs?: number
  /** Jobs that arrive, a second, over all processes. Default: always enough for every slot. */
  arrivalsPerSecond?: number
}

/** What there is. Whatever is not given is not judged. */
export interface ConnectionLimits {
  /** Size of each process's application pool. */
  applicationPool?: number
  /** Size of each process's engine pool, its heartbeat's connection included. */
  enginePool?: number
  /** Longest wait for a connection, in milliseconds. Default 10,000. */
  acquireTimeoutMs?: number
  /** `max_connections` of the server. */
  maxConnections?: number
  /** Connections that others use: web servers, dashboards, what the server reserves. Default 10. */
  otherConnections?: number
  /** Where a transaction-mode pooler stands between: server connections of its pool for the application. */
  poolerPool?: number
}

/** What is known of one task's jobs: of `engine.ledger()` or `engine.connections().tasks`. Times are milliseconds, in all. */
export interface ObservedTask {
  queue: string
  claims: number
  durationMs: number
  checkouts: number
  waitMs: number
  holdMs: number
}

/** How many connections are busy at the same time: half of the time at most `p50`, 99 % of the time at most `p99`. */
export interface BusyConnections {
  mean: number
  p50: number
  p99: number
}

/** @see adviseConnections */
export interface ConnectionAdvice {
  /** False when the limits that were given cannot carry the load. */
  works: boolean
  /** Jobs a second, over all processes, when no connection has to be waited for. */
  jobsPerSecond: number
  /** Of one process's application pool. */
  application: BusyConnections
  /** Of one process's engine pool. */
  engine: BusyConnections
  /** Of the application's pools of all processes together: what a pooler in transaction mode needs. */
  together: BusyConnections
  /** Of one process, if its jobs held a connection during the call as well. */
  ifHeldDuringCall: BusyConnections
  /** Pool sizes to set, for each process. */
  pools: { application: number; engine: number }
  /** Connections of all processes to the server, with those pools and no pooler between: notifications need none of their own then. */
  connections: number
  /** What the limits cannot carry, and what to set instead; empty when it works. */
  problems: string[]
  /** What to set and why, in plain words: the summary, the problems, and what could be less. */
  advice: string[]
}

/** One of the engine's pool is the heartbeat's. */
const SMALLEST_ENGINE_POOL = 2
/** A burst in which every slot asks at once should be over after this share of acquireTimeout. */
const BURST_SHARE = 0.25

/**
 * How many connections jobs need that hold one for milliseconds and wait for a call without one.
 *
 * Each of `concurrency` slots is a source that holds a connection for the share `holdMs / (callMs + holdMs)` of its
 * time, so the number of busy connections is binomial (Engset's model of finite sources, without blocking). Where jobs
 * arrive more slowly than the slots could take them, it is Poisson with the mean arrivals × hold (Little's law, and the
 * M/G/∞ queue), and never above the number of slots.
 *
 * @throws {TriphaseError} `INVALID_OPTIONS`, naming each wrong figure.
 * @example
 * const { pools, advice } = adviseConnections(
 *   { concurrency: 63, processes: 4, callMs: 15_000, holdMs: 12 },
 *   { applicationPool: 10, maxConnections: 100 },
 * )
 * // pools.application is 2: at most one connection is busy 99 % of the time
 */
export function adviseConnections(load: ConnectionLoad, limits: ConnectionLimits = {}): ConnectionAdvice {
  refuse(faultsOf(load, limits))
  const { concurrency, processes = 1, callMs, holdMs, checkouts = 2, engineHoldMs = 2 } = load
  const cycleMs = callMs + holdMs + engineHoldMs
  const most = cycleMs === 0 ? Number.POSITIVE_INFINITY : (concurrency * processes * 1_000) / cycleMs
  const jobsPerSecond = Math.min(load.arrivalsPerSecond ?? most, most)
  const saturated = jobsPerSecond === most
  const busy = (slots: number, share: number, heldMs: number): BusyConnections =>
    saturated
      ? binomial(slots, cycleMs === 0 ? 0 : heldMs / cycleMs)
      : poisson((jobsPerSecond * share * heldMs) / 1_000, slots)
  const ofOne = 1 / processes

  const application = busy(concurrency, ofOne, holdMs)
  const engine = busy(concurrency, ofOne, engineHoldMs)
  const together = busy(concurrency * processes, 1, holdMs)
  const ifHeldDuringCall = busy(concurrency, ofOne, cycleMs)

  const timeoutMs = limits.acquireTimeoutMs ?? 10_000
  const oneHoldMs = checkouts === 0 ? 0 : holdMs / checkouts
  const forBurst = Math.ceil((concurrency * oneHoldMs) / (timeoutMs * BURST_SHARE))
  const pools = {
    application: checkouts === 0 ? 0 : Math.min(concurrency, Math.max(application.p99 + 1, forBurst)),
    engine: Math.max(SMALLEST_ENGINE_POOL, engine.p99 + 1),
  }
  const connections = processes * (pools.application + pools.engine)
  const found = { application, together, ifHeldDuringCall, pools, connections, jobsPerSecond }
  const problems = problemsOf(load, limits, found, { oneHoldMs, timeoutMs })
  return {
    works: problems.length === 0,
    jobsPerSecond,
    application,
    engine,
    together,
    ifHeldDuringCall,
    pools,
    connections,
    problems,
    advice: [summary(load, found), ...problems, ...savings(limits, found)],
  }
}

/**
 * The load of a process whose queues run such jobs, with every slot in use; null where nothing is known of any of them.
 * Queues differ in how long their jobs take, so each counts by how many jobs its slots get through.
 *
 * @param concurrency of each queue in one process. Queues of which nothing is known are left out.
 * @example
 * const load = observedLoad(await engine.ledger(), { processing: 12, embeddings: 25 })
 * if (load) console.log(adviseConnections({ ...load, processes: 4 }).advice)
 */
export function observedLoad(
  tasks: readonly ObservedTask[],
  concurrency: Readonly<Record<string, number>>,
): ConnectionLoad | null {
  const sums = { slots: 0, jobsPerMs: 0, callMs: 0, holdMs: 0, checkouts: 0 }
  for (const [queue, slots] of Object.entries(concurrency)) {
    const own = tasks.filter((task) => task.queue === queue)
    const total = (figure: (task: ObservedTask) => number) => own.reduce((sum, task) => sum + figure(task), 0)
    // What a connection was waited for is no part of the load: it comes from the pool.
    const busyMs = total(({ durationMs, waitMs }) => Math.max(0, durationMs - waitMs))
    if (busyMs === 0) continue
    const jobsPerMs = (slots * total(({ claims }) => claims)) / busyMs
    const share = slots / busyMs
    sums.slots += slots
    sums.jobsPerMs += jobsPerMs
    sums.holdMs += share * total(({ holdMs }) => holdMs)
    sums.callMs +=
      share * total(({ durationMs, waitMs, holdMs }) => Math.max(0, durationMs - waitMs - holdMs))
    sums.checkouts += share * total(({ checkouts }) => checkouts)
  }
  if (sums.slots === 0) return null
  return {
    concurrency: sums.slots,
    callMs: sums.callMs / sums.jobsPerMs,
    holdMs: sums.holdMs / sums.jobsPerMs,
    checkouts: sums.checkouts / sums.jobsPerMs,
  }
}

type Found = Pick<
  ConnectionAdvice,
  'application' | 'together' | 'ifHeldDuringCall' | 'pools' | 'connections' | 'jobsPerSecond'
>

function summary(load: ConnectionLoad, { application, ifHeldDuringCall, pools }: Found): string {
  return (
    `${load.concurrency} jobs at a time hold ${plural(application.p50, 'connection')} half of the time and at most ` +
    `${application.p99} for 99 % of it: an application pool of ${pools.application} and an engine pool of ${pools.engine} ` +
    `in each process are enough. Held during the call as well, it would be ${ifHeldDuringCall.p99}.`
  )
}

function problemsOf(
  load: ConnectionLoad,
  limits: ConnectionLimits,
  { application, together, pools, connections }: Found,
  { oneHoldMs, timeoutMs }: { oneHoldMs: number; timeoutMs: number },
): string[] {
  const { applicationPool, enginePool, maxConnections, poolerPool, otherConnections = 10 } = limits
  const { concurrency, processes = 1 } = load
  const problems: string[] = []
  if (applicationPool !== undefined && applicationPool < application.mean) {
    problems.push(
      `An application pool of ${applicationPool} is busy all the time, as ${round(application.mean)} connections are ` +
        `in use in the mean: jobs wait longer and longer. Set it to ${pools.application}, or shorten the transactions.`,
    )
  } else if (applicationPool !== undefined) {
    const burstMs = (concurrency * oneHoldMs) / applicationPool
    if (burstMs > timeoutMs)
      problems.push(
        `When all ${concurrency} slots ask at once, the last waits ${Math.round(burstMs)} ms for one of ` +
          `${plural(applicationPool, 'connection')}, longer than acquireTimeout (${timeoutMs} ms): its job fails. ` +
          `Set the application pool to ${pools.application}, or raise acquireTimeout.`,
      )
  }
  if (poolerPool !== undefined && poolerPool < together.mean)
    problems.push(
      `The pooler's ${plural(poolerPool, 'server connection')} are busy all the time, as ${round(together.mean)} are ` +
        `in use in the mean over all processes. Set default_pool_size to ${together.p99 + 1}.`,
    )
  const asked =
    applicationPool === undefined || enginePool === undefined
      ? connections
      : processes * (applicationPool + enginePool)
  if (maxConnections !== undefined && poolerPool === undefined && asked + otherConnections > maxConnections)
    problems.push(
      `${plural(processes, 'process', 'processes')} may open ${asked} connections, and others use ${otherConnections}, ` +
        `of ${maxConnections} (max_connections): some will be refused. ` +
        (connections + otherConnections <= maxConnections
          ? `With pools of ${pools.application} and ${pools.engine} it is ${connections}.`
          : 'Put a transaction-mode pooler between, or run fewer processes with more concurrency each.'),
    )
  return problems
}

function savings({ applicationPool }: ConnectionLimits, { application, pools }: Found): string[] {
  if (applicationPool === undefined || applicationPool <= 2 * pools.application) return []
  return [
    `An application pool of ${applicationPool} is larger than jobs need: at most ${application.p99} of it are busy for ` +
      `99 % of the time. ${pools.application} would do, unless other code uses the pool too.`,
  ]
}

/** Of so many independent sources, each busy for this share of its time. */
function binomial(sources: number, share: number): BusyConnections {
  if (share >= 1) return { mean: sources, p50: sources, p99: sources }
  const odds = Math.log(share) - Math.log1p(-share)
  let logOf = sources * Math.log1p(-share)
  return quantiles(sources * share, sources, (count) => {
    if (count > 0) logOf += odds + Math.log((sources - count + 1) / count)
    return Math.exp(logOf)
  })
}

/** Poisson, with all that would be above `most` at `most`. */
function poisson(mean: number, most: number): BusyConnections {
  let logOf = -mean
  return quantiles(Math.min(mean, most), most, (count) => {
    if (count > 0) logOf += Math.log(mean / count)
    return Math.exp(logOf)
  })
}

/** @param probability of each count, asked from 0 upwards. */
function quantiles(mean: number, most: number, probability: (count: number) => number): BusyConnections {
  if (mean === 0) return { mean, p50: 0, p99: 0 }
  let below = 0
  let p50 = -1
  for (let count = 0; count < most; count++) {
    below += probability(count)
    if (p50 < 0 && below >= 0.5) p50 = count
    if (below >= 0.99) return { mean, p50, p99: count }
  }
  return { mean, p50: p50 < 0 ? most : p50, p99: most }
}

function faultsOf(load: ConnectionLoad, limits: ConnectionLimits): string[] {
  const counts = {
    concurrency: load.concurrency,
    processes: load.processes ?? 1,
    applicationPool: limits.applicationPool ?? 1,
    enginePool: limits.enginePool ?? 1,
    maxConnections: limits.maxConnections ?? 1,
    poolerPool: limits.poolerPool ?? 1,
  }
  const amounts = {
    callMs: load.callMs,
    holdMs: load.holdMs,
    checkouts: load.checkouts ?? 2,
    engineHoldMs: load.engineHoldMs ?? 2,
    arrivalsPerSecond: load.arrivalsPerSecond ?? 0,
    acquireTimeoutMs: limits.acquireTimeoutMs ?? 1,
    otherConnections: limits.otherConnections ?? 0,
  }
  const isCount = (value: number) => Number.isInteger(value) && value >= 1 && value <= 100_000
  const isAmount = (value: number) => Number.isFinite(value) && value >= 0
  return [
    ...Object.entries(counts).flatMap(([name, value]) =>
      isCount(value) ? [] : [`${name}: a whole number from 1 to 100000`],
    ),
    ...Object.entries(amounts).flatMap(([name, value]) =>
      isAmount(value) ? [] : [`${name}: a number from 0`],
    ),
  ]
}

function refuse(faults: readonly string[]): void {
  if (faults.length > 0)
    throw new TriphaseError('INVALID_OPTIONS', `These figures cannot be: ${faults.join('; ')}`)
}

function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
