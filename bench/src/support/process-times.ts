import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'

/** Linux counts in hundredths of a second, on every platform that Node runs on. */
const TICKS_PER_SECOND = 100

/**
 * CPU seconds of a Postgres so far: its postmaster, the processes that it has seen end, and those that live, without
 * the one that serves the caller. NaN where the system does not tell.
 *
 * @param except process id of the caller's own server process.
 */
export function serverCpuSeconds(except: number): number {
  if (!existsSync('/proc/self/stat')) return Number.NaN
  const postmaster = timesOf(String(except))?.parent
  let ticks = 0
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === except) continue
    const times = timesOf(entry)
    if (!times) continue
    if (Number(entry) === postmaster) ticks += times.own + times.ended
    else if (times.parent === postmaster) ticks += times.own
  }
  return ticks / TICKS_PER_SECOND
}

/** CPU seconds of a process of this machine so far; NaN where the system does not tell. */
export function processCpuSeconds(pid: number): number {
  const times = timesOf(String(pid))
  return times ? times.own / TICKS_PER_SECOND : Number.NaN
}

/** The same to the nanosecond, where Linux was built to count so. */
export function preciseCpuSeconds(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1e9
  } catch {
    return processCpuSeconds(pid)
  }
}

interface Times {
  parent: number
  own: number
  /** Of children that have ended and were waited for. */
  ended: number
}

/** From /proc/PID/stat, see proc(5); undefined for a process that has just gone. */
function timesOf(pid: string): Times | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in parentheses, which may itself have spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const number = (index: number) => Number(fields[index])
    return { parent: number(1), own: number(11) + number(12), ended: number(13) + number(14) }
  } catch {
    return undefined
  }
}

/** CPU seconds that all processes of the machine have used. */
export function machineCpuSeconds(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1_000
}

const LOOK_MS = 400

/** Resolves when little is going on on this machine, or when it has waited for long enough. */
export async function calm(mostCores: number, mostMs: number): Promise<void> {
  const until = performance.now() + mostMs
  while (performance.now() < until) {
    const before = machineCpuSeconds()
    await delay(LOOK_MS)
    if (machineCpuSeconds() - before < (mostCores * LOOK_MS) / 1_000) return
  }
}
