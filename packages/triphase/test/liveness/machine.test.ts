import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import { isCertainlyGone, processIdentity } from '../../src/maintenance/machine.ts'
import type { Peer } from '../../src/store/heartbeat.ts'
import { eventually } from '../support/processes.ts'

const proc = vi.hoisted(() => ({ hidden: false }))
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  const readFileSync = (path: string, encoding: 'utf8') => {
    if (proc.hidden && path.endsWith('/stat')) throw Object.assign(new Error('hidden'), { code: 'ENOENT' })
    return fs.readFileSync(path, encoding)
  }
  return { ...fs, readFileSync }
})

const { pid, machine, pidStarted } = processIdentity('me', [], 0)
const self: Peer = { id: '1', beat: '1', pid, machine, pidStarted, deadAfterMs: 0 }

/** Field 3 of /proc/PID/stat, its state, and field 22, its start. */
function statOf(pid: number): { state: string | undefined; start: string | undefined } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const [, state, rest] = stat.match(/^.*\) (\w) (.*)$/s) ?? []
  return { state, start: rest?.split(' ')[18] }
}

test.skipIf(process.platform === 'linux')('where the system does not tell, nobody is certainly gone', () => {
  expect([machine, pidStarted]).toEqual([null, null])
  expect(isCertainlyGone(self)).toBe(false)
})

describe.skipIf(process.platform !== 'linux')('a process of this machine', () => {
  test('that lives is not gone', () => {
    expect(isCertainlyGone(self)).toBe(false)
  })

  test('whose id is unused is gone', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'], { stdio: 'ignore' })
    const peer = { ...self, pid: child.pid as number, pidStarted: 'unknown' }
    child.kill('SIGKILL')
    await once(child, 'exit')
    expect(isCertainlyGone(peer)).toBe(true)
  })

  test('whose id was given to another is gone', () => {
    expect(isCertainlyGone({ ...self, pidStarted: String(Number(pidStarted) - 1) })).toBe(true)
  })

  test('that cannot be looked at is not gone: /proc may hide the processes of other users', () => {
    proc.hidden = true
    expect(isCertainlyGone(self)).toBe(false)
    expect(isCertainlyGone({ ...self, pid: 2 ** 22 + 1 })).toBe(true)
    proc.hidden = false
  })

  test('that is stopped is not gone', async () => {
    // A process with spaces and parentheses in its name, which /proc prints as it is.
    const script = `process.title = 'a) S (b'; process.kill(process.pid, 'SIGSTOP')`
    const child = spawn(process.execPath, ['-e', script], { stdio: 'ignore' })
    const pid = child.pid as number
    await eventually(() => statOf(pid).state === 'T')
    const peer = { ...self, pid, pidStarted: statOf(pid).start as string }
    expect(isCertainlyGone(peer)).toBe(false)
    expect(isCertainlyGone({ ...peer, pidStarted: '1' })).toBe(true)
    child.kill('SIGKILL')
    await once(child, 'exit')
  })
})

test('a process of another machine, of another boot or another container, is never certainly gone', () => {
  for (const elsewhere of [null, 'another boot', `${machine}0`])
    expect(isCertainlyGone({ ...self, machine: elsewhere, pidStarted: '1' })).toBe(false)
  expect(isCertainlyGone({ ...self, pidStarted: null })).toBe(false)
})
