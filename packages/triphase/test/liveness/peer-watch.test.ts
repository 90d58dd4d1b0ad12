import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PeerWatch } from '../../src/maintenance/peers.ts'
import type { Peer } from '../../src/store/heartbeat.ts'

const HEARTBEAT = 4_000
const DEAD_AFTER = 12_000

function peer(id: string, beat: number, deadAfterMs = 0): Peer {
  return { id, beat: String(beat), pid: 1, machine: null, pidStarted: null, deadAfterMs }
}

function dead(watch: PeerWatch, now: number, ...peers: Peer[]): string[] {
  return watch.observe(peers, now).map(({ id }) => id)
}

describe('a peer watch', () => {
  test('declares a silent peer dead at the fourth sighting of the same beat', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    expect([0, 4_000, 8_000].flatMap((now) => dead(watch, now, peer('a', 7)))).toEqual([])
    expect(dead(watch, 12_000, peer('a', 7))).toEqual(['a'])
  })

  test('wants the whole time to pass, however often it looks', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    for (let now = 0; now < 11_000; now += 500) expect(dead(watch, now, peer('a', 7))).toEqual([])
    expect(dead(watch, 12_000, peer('a', 7))).toEqual(['a'])
  })

  test('gives a peer the time that it asks for, and never less than its own', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    const peers = [peer('slow', 7, 60_000), peer('quick', 7, 1_000)]
    for (let now = 0; now < 12_000; now += 4_000) expect(dead(watch, now, ...peers)).toEqual([])
    for (let now = 12_000; now < 60_000; now += 4_000) expect(dead(watch, now, ...peers)).toEqual(['quick'])
    expect(dead(watch, 60_000, ...peers)).toEqual(['slow', 'quick'])
  })

  test('does not wait for one more beat because its own came a few milliseconds early', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    expect([0, 3_998, 7_995].flatMap((now) => dead(watch, now, peer('a', 7)))).toEqual([])
    expect(dead(watch, 11_992, peer('a', 7))).toEqual(['a'])
  })

  test('begins again when the peer beats', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    for (const [now, beat] of [
      [0, 1],
      [4_000, 1],
      [8_000, 1],
      [12_000, 2],
      [16_000, 2],
      [20_000, 2],
    ] as const)
      expect(dead(watch, now, peer('a', beat))).toEqual([])
    expect(dead(watch, 24_000, peer('a', 2))).toEqual(['a'])
  })

  test('begins again after a late beat of its own, and after a failed one', () => {
    const late = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    for (const now of [0, 4_000, 8_000, 16_001, 20_000, 24_000])
      expect(dead(late, now, peer('a', 1))).toEqual([])
    expect(dead(late, 28_001, peer('a', 1))).toEqual(['a'])

    const failed = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    for (const now of [0, 4_000, 8_000]) expect(dead(failed, now, peer('a', 1))).toEqual([])
    failed.restart()
    for (const now of [12_000, 16_000, 20_000]) expect(dead(failed, now, peer('a', 1))).toEqual([])
    expect(dead(failed, 24_000, peer('a', 1))).toEqual(['a'])
  })

  test('forgets a peer that leaves', () => {
    const watch = new PeerWatch(HEARTBEAT, DEAD_AFTER)
    for (const now of [0, 4_000, 8_000]) dead(watch, now, peer('a', 1))
    expect(dead(watch, 12_000)).toEqual([])
    expect(dead(watch, 16_000, peer('a', 1))).toEqual([])
  })
})

/** A beat of the watching process, so many milliseconds after the one before. */
type OwnBeat = { after: number; failed: boolean }

interface Settings {
  heartbeat: number
  deadAfter: number
}

/** `deadAfter` is at least three heartbeats, as the configuration demands. */
const settings: fc.Arbitrary<Settings> = fc
  .record({
    heartbeat: fc.integer({ min: 10, max: 10_000 }),
    multiple: fc.double({ min: 3, max: 12, noNaN: true }),
  })
  .map(({ heartbeat, multiple }) => ({ heartbeat, deadAfter: Math.ceil(heartbeat * multiple) }))

/** Own beats: on time, late, or failed, in heartbeats. */
const schedule: fc.Arbitrary<OwnBeat[]> = fc.array(
  fc.record({
    after: fc.oneof(
      { weight: 8, arbitrary: fc.double({ min: 0.25, max: 1.5, noNaN: true }) },
      { weight: 1, arbitrary: fc.double({ min: 1.5, max: 60, noNaN: true }) },
    ),
    failed: fc.oneof({ weight: 8, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.boolean() }),
  }),
  { minLength: 1, maxLength: 80 },
)

interface Sighting {
  now: number
  beat: number
}

/** Plays own beats against a peer whose counter is a function of time; tells of each beat what was known by then. */
function play(
  { heartbeat, deadAfter }: Settings,
  own: readonly OwnBeat[],
  counterAt: (now: number) => number,
  onSighting: (declared: boolean, unbroken: readonly Sighting[]) => void,
): void {
  const watch = new PeerWatch(heartbeat, deadAfter)
  let unbroken: Sighting[] = []
  let now = 0
  for (const { after, failed } of own) {
    now += after * heartbeat
    if (failed) {
      watch.restart()
      unbroken = []
      continue
    }
    const last = unbroken.at(-1)
    if (last && now - last.now > 2 * heartbeat) unbroken = []
    unbroken.push({ now, beat: counterAt(now) })
    onSighting(dead(watch, now, peer('a', counterAt(now))).length > 0, unbroken)
  }
}

/** The newest sightings that show the same counter. */
function unchanged(sightings: readonly Sighting[]): readonly Sighting[] {
  const changed = sightings.findLastIndex(({ beat }) => beat !== sightings.at(-1)?.beat)
  return sightings.slice(changed + 1)
}

describe('for any schedule of beats, late beats and failures', () => {
  test('a peer that beats in time is never declared dead', () => {
    const gaps = fc.array(fc.double({ min: 0.1, max: 2.5, noNaN: true }), { minLength: 1, maxLength: 40 })
    fc.assert(
      fc.property(settings, schedule, gaps, (given, own, peerGaps) => {
        const counterAt = counterFrom(peerGaps.map((gap) => gap * given.heartbeat))
        play(given, own, counterAt, (declared) => expect(declared).toBe(false))
      }),
      { numRuns: 1_000 },
    )
  })

  test('a peer that falls silent is dead within deadAfter and two heartbeats, if own beats are on time', () => {
    const onTime = fc.array(fc.double({ min: 0.25, max: 1, noNaN: true }), { minLength: 80, maxLength: 80 })
    fc.assert(
      fc.property(
        settings,
        onTime,
        fc.double({ min: 0, max: 3, noNaN: true }),
        (given, gaps, silentAfter) => {
          const lastBeat = silentAfter * given.heartbeat
          let deadAt = Number.POSITIVE_INFINITY
          let now = 0
          const own = gaps.map((after) => ({ after, failed: false }))
          play(
            given,
            own,
            (at) => (at < lastBeat ? Math.floor(at) : -1),
            (declared, sightings) => {
              now = (sightings.at(-1) as Sighting).now
              if (declared) deadAt = Math.min(deadAt, now)
            },
          )
          const limit = lastBeat + given.deadAfter + 2 * given.heartbeat
          if (now > limit) expect(deadAt).toBeLessThanOrEqual(limit)
        },
      ),
      { numRuns: 1_000 },
    )
  })

  test('nobody is declared dead on less than four sightings and the whole time since the last interruption', () => {
    fc.assert(
      fc.property(
        settings,
        schedule,
        fc.double({ min: 0, max: 40, noNaN: true }),
        (given, own, silentAfter) => {
          const lastBeat = silentAfter * given.heartbeat
          play(
            given,
            own,
            (at) => (at < lastBeat ? Math.floor(at) : -1),
            (declared, sightings) => {
              const same = unchanged(sightings)
              const span = (same.at(-1) as Sighting).now - (same[0] as Sighting).now
              if (declared) expect(same.length).toBeGreaterThanOrEqual(4)
              if (declared) expect(span).toBeGreaterThanOrEqual(given.deadAfter - given.heartbeat / 10)
              if (same.length >= 4 && span >= given.deadAfter) expect(declared).toBe(true)
            },
          )
        },
      ),
      { numRuns: 1_000 },
    )
  })
})

/** The beat counter of a peer that beats at these gaps, over and over. */
function counterFrom(gaps: readonly number[]): (now: number) => number {
  const times: number[] = [0]
  return (now) => {
    while ((times.at(-1) as number) <= now)
      times.push((times.at(-1) as number) + (gaps[times.length % gaps.length] as number))
    return times.findLastIndex((time) => time <= now)
  }
}
