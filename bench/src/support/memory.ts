import { setTimeout as delay } from 'node:timers/promises'

/** Memory of this process, in MiB. */
export interface Memory {
  rss: number
  heap: number
}

const LOOKS = 5
const PAUSE_MS = 100

/** After forced collections (`--expose-gc`), the median of some looks. */
export async function memory(): Promise<Memory> {
  const looks: NodeJS.MemoryUsage[] = []
  while (looks.length < LOOKS) {
    globalThis.gc?.()
    await delay(PAUSE_MS)
    looks.push(process.memoryUsage())
  }
  return { rss: median(looks.map(({ rss }) => rss)), heap: median(looks.map(({ heapUsed }) => heapUsed)) }
}

function median(bytes: readonly number[]): number {
  const sorted = [...bytes].sort((a, b) => a - b)
  return (sorted[sorted.length >> 1] ?? Number.NaN) / 2 ** 20
}
