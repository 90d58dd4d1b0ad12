import type { SweepDefinition } from '../../src/index.ts'
import { spawnWorker, type WorkerProcess } from '../support/processes.ts'

export interface SweepProgramSettings {
  url: string
  schema: string
  table: string
  apiUrl: string
  concurrency: number
  pageSize: number
  /** Begins the run. */
  run?: boolean
  queueConcurrency?: number
  /** Ends its process with kill -9 when it comes to this record. */
  poison?: string
}

/** One call of the counting API for each record. */
export function countSweep(
  settings: SweepProgramSettings,
  permanent: (message: string) => Error,
): SweepDefinition<{ id: string }, { id: string }> {
  return {
    name: 'count',
    table: { name: settings.table, key: 'id' },
    concurrency: settings.concurrency,
    pageSize: settings.pageSize,
    async each({ id }, { signal, idempotencyKey }) {
      const response = await fetch(`${settings.apiUrl}/call`, {
        method: 'POST',
        headers: { 'idempotency-key': idempotencyKey },
        body: JSON.stringify({ key: id }),
        signal,
      })
      if (id === settings.poison) process.kill(process.pid, 'SIGKILL')
      if (response.status === 422) throw permanent('it cannot be read')
      if (!response.ok) throw new Error(`answered ${response.status}`)
      return ((await response.json()) as { answer: string }).answer
    },
    onDone: async () => {
      await fetch(`${settings.apiUrl}/call`, { method: 'POST', body: JSON.stringify({ key: 'hook' }) })
    },
  }
}

export function spawnSweeper(settings: SweepProgramSettings): WorkerProcess {
  const program = new URL('./sweep-program.ts', import.meta.url)
  return spawnWorker(program, { env: { SWEEP_PROGRAM: JSON.stringify(settings) } })
}
