import type { EngineOptions, TelemetryEvents } from '../../src/index.ts'
import { eventually, spawnWorker, type WorkerProcess } from '../support/processes.ts'

/** What worker-program.ts is told. */
export interface WorkerSettings {
  url: string
  schema: string
  options?: Partial<EngineOptions>
  /** `engine` (the default): nobody handles signals. `runner`: `run(engine)`. `migrate`: only that. */
  mode?: 'engine' | 'runner' | 'migrate'
  /** Migrates first. */
  migrate?: boolean
  /** Wrongness of the process's clock. */
  clockShiftMs?: number
  /** Of the counting API. */
  apiUrl?: string
}

interface Printed {
  aborted: { jobId: string; code: string }
  napping: { jobId: string }
  napped: { jobId: string }
  ready: { processId: string; pid: number }
  signal: { signal: NodeJS.Signals }
  stopped: { signal: NodeJS.Signals }
  migrated: number[]
}

type Lines = TelemetryEvents & Printed

/** An engine in a process of its own. */
export interface EngineProcess extends WorkerProcess {
  /** All events of a kind that it has reported so far. */
  events<Name extends keyof Lines>(name: Name): Lines[Name][]
  /** The first event of a kind, and of a kind and fitting `matches`, past or to come. */
  event<Name extends keyof Lines>(
    name: Name,
    matches?: (event: Lines[Name]) => boolean,
    deadlineMs?: number,
  ): Promise<Lines[Name]>
}

export function spawnEngine(settings: WorkerSettings): EngineProcess {
  const program = new URL('./worker-program.ts', import.meta.url)
  const worker = spawnWorker(program, { env: { TRIPHASE_WORKER: JSON.stringify(settings) } })
  return Object.assign(worker, {
    events<Name extends keyof Lines>(name: Name): Lines[Name][] {
      return worker.lines.flatMap((line) => parsed(name, line))
    },
    async event<Name extends keyof Lines>(
      name: Name,
      matches: (event: Lines[Name]) => boolean = () => true,
      timeout = 20_000,
    ): Promise<Lines[Name]> {
      // The lines are searched here: waitForLine knows patterns only, and fails when the process ends.
      await worker.waitForLine(new RegExp(`^${name} `), timeout)
      return (await eventually(() => this.events(name).find(matches) ?? null, { timeout })) as Lines[Name]
    },
  })
}

/** Starts an engine in a process of its own and waits until it is registered. */
export async function startEngine(settings: WorkerSettings): Promise<EngineProcess & { processId: string }> {
  const worker = spawnEngine(settings)
  const { processId } = await worker.event('ready')
  return Object.assign(worker, { processId })
}

function parsed<Name extends keyof Lines>(name: Name, line: string): Lines[Name][] {
  return line.startsWith(`${name} `) ? [JSON.parse(line.slice(name.length + 1)) as Lines[Name]] : []
}
