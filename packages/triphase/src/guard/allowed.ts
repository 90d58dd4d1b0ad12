import type { Allowed } from '../config.ts'
import type { Call } from './taps.ts'

/** An entry is a host, a host with a port, or `.example.com` for all hosts below it. */
export function allows(allowed: Allowed, call: Call): boolean {
  if (allowed === true) return true
  if (allowed.length === 0) return false
  const host = call.host()?.toLowerCase()
  if (host === undefined) return false
  const name = host.replace(/:\d+$/, '')
  return allowed.some((entry) => {
    const known = entry.toLowerCase()
    return known.startsWith('.') ? name.endsWith(known) : known === host || known === name
  })
}
