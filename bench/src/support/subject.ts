import { type Channel, Conversation } from './conversation.ts'

/** Figures by name. */
export type Figures = Record<string, number>

/** What a measured process says when it is through. */
export interface Done {
  seconds: number
  cpuSeconds: number
  /** What only the process itself can tell. */
  figures: Figures
  /** What went wrong. */
  faults: string[]
}

/**
 * The whole of a process that a benchmark starts: it is told what to do, does it, and ends when everything that it
 * opened is closed.
 */
export async function runSubject<Order>(
  work: (order: Order, parent: Conversation) => Promise<void>,
): Promise<void> {
  const parent = new Conversation(process as unknown as Channel)
  // A benchmark that was killed leaves nobody behind.
  const orphaned = () => process.exit(1)
  process.once('disconnect', orphaned)
  await work(await parent.heard<Order>('order'), parent)
  process.off('disconnect', orphaned)
  process.disconnect?.()
}

/**
 * Runs the part that is measured, when the benchmark is ready for it; returns when the benchmark has noted the end.
 *
 * @param work says itself how many seconds it took when that is less than until its end.
 */
export async function timed(
  parent: Conversation,
  work: () => Promise<{ figures?: Figures; faults?: string[]; seconds?: number }>,
): Promise<void> {
  parent.tell('ready')
  await parent.heard('go')
  const began = performance.now()
  const cpu = process.cpuUsage()
  const { figures = {}, faults = [], seconds: own } = await work()
  const { user, system } = process.cpuUsage(cpu)
  const seconds = own ?? (performance.now() - began) / 1_000
  parent.tell('done', { seconds, cpuSeconds: (user + system) / 1e6, figures, faults } satisfies Done)
  await parent.heard('noted')
}

/** Counts how often each of the jobs 0, 1, 2, … ran, and says when all have. */
export class RunCount {
  readonly #runs: Uint8Array

  constructor(jobs: number) {
    this.#runs = new Uint8Array(jobs)
  }

  count(n: number): void {
    this.#runs[n] = (this.#runs[n] ?? 0) + 1
  }

  /** Each had to run, and once. */
  faults(): string[] {
    const never = this.#runs.filter((runs) => runs === 0).length
    return [...(never > 0 ? [`${never} jobs never ran`] : []), ...this.faultsOfSome()]
  }

  /** Some of them run elsewhere; none may run twice here. */
  faultsOfSome(): string[] {
    const again = this.#runs.filter((runs) => runs > 1).length
    return again > 0 ? [`${again} jobs ran more than once`] : []
  }
}
