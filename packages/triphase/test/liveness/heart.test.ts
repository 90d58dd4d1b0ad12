import { afterEach, expect, test, vi } from 'vitest'
import { Heart } from '../../src/maintenance/heart.ts'
import { processIdentity } from '../../src/maintenance/machine.ts'
import type { Database } from '../../src/store/database.ts'
import { Telemetry } from '../../src/telemetry.ts'

const HEARTBEAT_MS = 100

afterEach(() => void vi.useRealTimers())

/** A heart whose beats end as they are told: after so many milliseconds, well or not. One peer, which never beats. */
function heartWith(beats: readonly { afterMs: number; fails?: boolean }[]) {
  let began = 0
  /** When each beat was asked to look for strays, since the start. */
  const looks: number[] = []
  const silent = { id: '2', beat: '7', pid: 1, machine: null, pidStarted: null, deadAfterMs: 0 }
  const row = { alive: true, leads: false, peers: JSON.stringify([silent]), next_due_ms: null }
  const database = {
    async query(sql: string, values: unknown[]) {
      if (/INSERT INTO triphase\.process/.test(sql)) return [{ id: '1' }]
      if (values.at(-1) === true) looks.push(performance.now() - started)
      const { afterMs, fails } = beats[began++] ?? { afterMs: 0 }
      if (afterMs > 0) await new Promise((resolve) => setTimeout(resolve, afterMs))
      if (fails) throw new Error('no connection')
      return [{ ...row, cancelled: null, lost: null, strays: null, queues: null, available: null }]
    },
  }
  const dead: number[] = []
  const heart = new Heart({
    database: database as unknown as Database,
    identity: processIdentity('heart', [], 0),
    telemetry: new Telemetry(),
    heartbeatMs: HEARTBEAT_MS,
    deadAfterMs: 3 * HEARTBEAT_MS,
    running: () => [],
    onBeat: () => {},
    onLost: () => {},
    onDead: async () => void dead.push(performance.now() - started),
  })
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  const started = performance.now()
  return { heart, dead, looks, beats: () => began }
}

async function firstDeath({ heart, dead }: ReturnType<typeof heartWith>): Promise<number> {
  await heart.start()
  while (dead.length === 0) await vi.advanceTimersByTimeAsync(1)
  await heart.stop()
  return dead[0] as number
}

test('a silent peer is dead after three pauses between beats that are on time', async () => {
  const ms = await firstDeath(heartWith([]))
  expect(ms).toBeGreaterThanOrEqual(3 * HEARTBEAT_MS - 10)
  expect(ms).toBeLessThan(3 * HEARTBEAT_MS + 10)
})

test('a failed beat starts the observation anew, however soon the next one succeeds', async () => {
  // The first sighting is late in its beat, so that the failure in between opens no gap of two heartbeats.
  const ms = await firstDeath(heartWith([{ afterMs: 90 }, { afterMs: 0, fails: true }]))
  const nextSuccess = 90 + HEARTBEAT_MS / 4 + HEARTBEAT_MS
  expect(ms).toBeGreaterThanOrEqual(nextSuccess + 3 * HEARTBEAT_MS - 10)
})

test('a late beat starts the observation anew', async () => {
  const ms = await firstDeath(heartWith([{ afterMs: 0 }, { afterMs: 0 }, { afterMs: 250 }]))
  expect(ms).toBeGreaterThanOrEqual(2 * HEARTBEAT_MS + 250 + 3 * HEARTBEAT_MS - 80)
})

test('a slow beat is followed by a pause all the same, so that a slow database is not asked without end', async () => {
  const { heart, beats } = heartWith(Array(20).fill({ afterMs: 500 }))
  await heart.start()
  await vi.advanceTimersByTimeAsync(10 * (500 + HEARTBEAT_MS / 4))
  expect(beats()).toBeLessThanOrEqual(11)
  const stopped = heart.stop()
  await vi.advanceTimersByTimeAsync(500)
  await stopped
})

test('strays are looked for only after a claim was given up, and then for minutes: it may still reach the server', async () => {
  const { heart, looks } = heartWith([])
  await heart.start()
  await vi.advanceTimersByTimeAsync(60_000)
  expect(looks).toEqual([])
  heart.expectStrays()
  await vi.advanceTimersByTimeAsync(600_000)
  await heart.stop()
  expect(looks[0]).toBeGreaterThanOrEqual(60_000)
  expect(looks.at(-1)).toBeGreaterThan(60_000 + 180_000)
  expect(looks.at(-1)).toBeLessThan(600_000)
})
