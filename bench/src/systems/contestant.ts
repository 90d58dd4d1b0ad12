import type { Program } from '../support/installed.ts'
import type { Stage } from '../support/stage.ts'
import { loadSystem, type Settings, type SystemName } from './system.ts'

/** A system with its settings, as one line of a table. */
export interface Contestant {
  name: string
  system: SystemName
  settings: Settings
}

/** What a measured process is told. */
export interface ContestantOrder {
  system: SystemName
  settings: Settings
  url: string
}

/** What must be installed for it, beyond npm packages. */
export function needsOf({ system }: Contestant): { needs?: Program } {
  return system === 'bullmq' ? { needs: 'redis-server' } : {}
}

/** Installs it in the stage's database, or on a server of its own. */
export async function installed(stage: Stage, { system, settings }: Contestant): Promise<ContestantOrder> {
  const url = system === 'bullmq' ? (await stage.startRedis()).url : stage.url
  await (await loadSystem(system)).install(url, settings)
  return { system, settings, url }
}

const BATCH = 1_000

/** Writes the jobs 0, 1, 2, … */
export async function fill(
  { system, settings, url }: ContestantOrder,
  jobs: number,
  from = 0,
): Promise<void> {
  const open = await (await loadSystem(system)).open(url, settings)
  for (let next = from; next < from + jobs; next += BATCH) {
    await open.enqueueMany(next, Math.min(BATCH, from + jobs - next))
  }
  await open.close()
}

/** Faults of a database in which so many numbered jobs wait, and so many others are done and kept. */
export async function countFaults(
  { system, settings, url }: ContestantOrder,
  expected: { live: number; done: number },
): Promise<string[]> {
  const { live, done, different } = await (await loadSystem(system)).count(url)
  const keeps = !('history' in settings && settings.history === false)
  const kept = keeps ? expected.done : 0
  return [
    ...differs('live jobs', live, expected.live),
    ...(done === null ? [] : differs('jobs in history', done, kept)),
    ...(different === null ? [] : differs('different jobs', different, expected.live + kept)),
  ]
}

/** A fault where a count is not what it has to be. */
export function differs(what: string, found: number | undefined, expected: number): string[] {
  return found === expected ? [] : [`${what}: ${found}, not ${expected}`]
}
