import { readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import type { Peer, ProcessIdentity } from '../store/heartbeat.ts'

/** What tells this process from all others, on this machine and on others. */
export function processIdentity(
  name: string,
  queues: readonly string[],
  deadAfterMs: number,
): ProcessIdentity {
  return {
    name,
    host: hostname(),
    pid: process.pid,
    machine: machine(),
    pidStarted: startOf(process.pid),
    deadAfterMs,
    queues,
  }
}

/**
 * Whether a peer is certainly dead: it ran on this very machine, in the same process-id namespace and since the same
 * boot, and its process id is unused, a zombie's, or was given to a later process. Only Linux tells all of that;
 * elsewhere, and for peers on other machines, nothing is certain.
 */
export function isCertainlyGone(peer: Peer): boolean {
  if (peer.machine === null || peer.pidStarted === null || peer.machine !== machine()) return false
  const started = startOf(peer.pid)
  return started === null ? isUnused(peer.pid) : started !== peer.pidStarted
}

/** Boot and process-id namespace; two containers on one machine differ in the second. */
function machine(): string | null {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
    return `${boot}/${readlinkSync('/proc/self/ns/pid')}`
  } catch {
    return null
  }
}

const ENDED = 'ended'

/** Start time of a process in clock ticks since boot (proc(5), /proc/PID/stat, field 22), or that it has ended; null when it cannot be read. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The second field is a name in parentheses, which may itself have spaces and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return fields[0] === 'Z' || fields[0] === 'X' ? ENDED : (fields[19] ?? null)
  } catch {
    return null
  }
}

/** /proc may hide the processes of other users (hidepid), and a process may have no file handle left to read it with. */
function isUnused(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return false
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH'
  }
}
