import { execFileSync } from 'node:child_process'
import { readFileSync, readlinkSync } from 'node:fs'
import { hasCode } from './errors.ts'

/**
 * Names one process, and no later process that gets the same pid: `<pid>-<start time>.<scope>`.
 *
 * On Linux the start time counts from boot and the scope is the boot and the pid namespace (a container's), outside of
 * which pid and time mean nothing. On macOS it is the time of day and there is no scope. All characters are safe in a
 * file name, and the only hyphen is the first.
 */
export type ProcessIdentity = string

const GONE = Symbol('no such process')
const HIDDEN = Symbol('a process that exists but may not be looked at')

let own: ProcessIdentity | undefined

export function ownIdentity(): ProcessIdentity {
  own ??= identityOf(process.pid)
  return own
}

export function identityOf(pid: number): ProcessIdentity {
  const birth = birthOf(pid)
  return `${pid}-${typeof birth === 'string' ? birth : `unknown.${ownScope()}`}`
}

export function pidOf(identity: ProcessIdentity): number {
  return Number(identity.split('-', 1)[0])
}

/** True when in doubt: a user of the server that cannot be looked at (`hidepid`) must not be taken for dead. */
export function isAlive(identity: ProcessIdentity): boolean {
  const birth = birthOf(pidOf(identity))
  if (birth === GONE) return false
  return birth === HIDDEN || birth === identity.slice(identity.indexOf('-') + 1)
}

/** Of another container or machine, or from before the last boot: whether it lives cannot be known from here. */
export function isForeign(identity: ProcessIdentity): boolean {
  return identity.slice(identity.indexOf('.') + 1) !== ownScope()
}

/** False for a zombie as well: in a container whose first process reaps nothing, they stay for ever. */
export function pidIsAlive(pid: number): boolean {
  return birthOf(pid) !== GONE
}

/** The command line as separate arguments on Linux, as one string elsewhere. Empty when it cannot be read. */
export function commandLineOf(pid: number): string[] {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
    return [askPs(pid, 'command=')]
  } catch {
    return []
  }
}

function birthOf(pid: number): string | typeof GONE | typeof HIDDEN {
  if (!Number.isSafeInteger(pid) || pid <= 0) return GONE
  try {
    return process.platform === 'linux' ? birthOnLinux(pid) : birthFromPs(pid)
  } catch {
    return existsForKill(pid) ? HIDDEN : GONE
  }
}

function birthOnLinux(pid: number): string | typeof GONE {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The second field is the command in parentheses and may contain spaces and parentheses of its own.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (fields[0] === 'Z' || fields[0] === 'X') return GONE
  return `${fields[19]}.${ownScope()}`
}

function birthFromPs(pid: number): string | typeof GONE {
  const [state = '', ...started] = askPs(pid, 'state=,lstart=').split(/\s+/)
  if (state.startsWith('Z')) return GONE
  return `${Date.parse(`${started.join(' ')} UTC`) / 1000}.${ownScope()}`
}

function askPs(pid: number, columns: string): string {
  const environment = { PATH: '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' }
  return execFileSync('ps', ['-ww', '-o', columns, '-p', String(pid)], {
    encoding: 'utf8',
    env: environment,
    stdio: ['ignore', 'pipe', 'ignore'],
  }).trim()
}

let scope: string | undefined

function ownScope(): string {
  scope ??= process.platform === 'linux' ? linuxScope() : 'host'
  return scope
}

function linuxScope(): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8)
  const namespace = readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')
  return `${boot}.${namespace}`
}

function existsForKill(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, 'EPERM')
  }
}
