import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readdirSync, readlinkSync, realpathSync, rmSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, expect, onTestFinished } from 'vitest'
import { startEmbeddedPostgres } from '../src/index.ts'
import { commandLineOf, pidIsAlive } from '../src/process-identity.ts'

/** A folder that is removed after the test, which fails when a process is left that works on it. */
export function temporaryFolder(parent: string = tmpdir()): string {
  const folder = realpathSync(mkdtempSync(join(parent, 'triphase embedded-')))
  chmodSync(folder, 0o755)
  onTestFinished(async () => {
    await rm(folder, { recursive: true, force: true, maxRetries: 10 })
    await until('every process that worked in the folder has ended', () => processesIn(folder).length === 0)
  })
  return folder
}

let template: string | undefined

afterAll(() => {
  if (template !== undefined) rmSync(dirname(template), { recursive: true })
})

/** A directory in which a server has run before, which is faster to have than a new one. */
export async function usedDirectory(): Promise<string> {
  template ??= await makeTemplate()
  const directory = join(temporaryFolder(), 'data')
  execFileSync('cp', ['-a', template, directory])
  return directory
}

async function makeTemplate(): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'triphase-embedded-template-'))
  chmodSync(folder, 0o755)
  const directory = join(folder, 'data')
  await (await startEmbeddedPostgres({ directory })).stop()
  rmSync(join(directory, 'port'))
  return directory
}

/** Polls, because a fixed time is too short on a busy machine and too long on an idle one. */
export async function until(
  what: string,
  check: () => boolean | Promise<boolean>,
  seconds = 25,
): Promise<void> {
  const deadline = Date.now() + seconds * 1000
  while (!(await check())) {
    expect(Date.now(), `waited ${seconds} s until ${what}`).toBeLessThan(deadline)
    await delay(20)
  }
}

export interface FoundProcess {
  pid: number
  command: string
}

/** Postgres servers and watchdogs of a folder. */
export function processesIn(folder: string): FoundProcess[] {
  return allProcesses().filter(({ pid, command }) => {
    const isTested = /bin\/postgres |^postgres: |watchdog\.[tj]s /.test(command)
    return isTested && (command.includes(folder) || workingFolder(pid).startsWith(folder)) && pidIsAlive(pid)
  })
}

/** Not with `ps` where it can be avoided: these tests ask often, on machines that are busy. */
function allProcesses(): FoundProcess[] {
  if (process.platform === 'linux') {
    const pids = readdirSync('/proc').map(Number).filter(Number.isInteger)
    return pids.map((pid) => ({ pid, command: commandLineOf(pid).join(' ') }))
  }
  const lines = execFileSync('ps', ['-ww', '-eo', 'pid=,command='], { encoding: 'utf8' }).trim().split('\n')
  return lines.map((line) => ({ pid: Number.parseInt(line, 10), command: line.trim().replace(/^\d+ /, '') }))
}

export function watchdogsOf(folder: string): FoundProcess[] {
  return processesIn(folder).filter(({ command }) => /watchdog\.[tj]s /.test(command))
}

export function postmastersOf(folder: string): FoundProcess[] {
  return processesIn(folder).filter(({ command }) => command.includes('bin/postgres '))
}

function workingFolder(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`)
  } catch {
    return ''
  }
}
