import type { Peer } from '../store/heartbeat.ts'

interface Observation {
  beat: string
  since: number
  /** Own consecutive beats that saw the peer's counter at this value. */
  sightings: number
}

const LEAST_SIGHTINGS = 4

/**
 * Tells which peers are dead, by observation only: a peer is dead when this process, while its own beats came on
 * time, has seen the peer's beat counter unchanged over at least three of its own consecutive beats after the first
 * sighting, spanning the limit: its own, or that of the peer where that is longer. Clocks are never compared, and a failed
 * or late beat of its own starts every observation anew: after an outage of the database, a sleep of the machine or a
 * stopped process, nobody is taken for dead by somebody who was not watching.
 */
export class PeerWatch {
  readonly #deadAfterMs: number
  readonly #allowanceMs: number
  readonly #lateAfterMs: number
  #observations = new Map<string, Observation>()
  #lastBeat: number | undefined

  /** @param heartbeatMs pause between two beats; a beat later than twice that is late. */
  constructor(heartbeatMs: number, deadAfterMs: number) {
    // Timers are a few milliseconds off: without the allowance every other fourth sighting would come just before the
    // limit, and the rescue a whole beat later.
    this.#deadAfterMs = deadAfterMs
    this.#allowanceMs = heartbeatMs / 10
    this.#lateAfterMs = 2 * heartbeatMs
  }

  /**
   * Takes note of what a beat of this process saw.
   *
   * @param now monotonic time, in milliseconds.
   * @returns the peers that are dead.
   */
  observe(peers: readonly Peer[], now: number): Peer[] {
    if (this.#lastBeat !== undefined && now - this.#lastBeat > this.#lateAfterMs) this.restart()
    this.#lastBeat = now
    const previous = this.#observations
    this.#observations = new Map(peers.map((peer) => [peer.id, continued(previous.get(peer.id), peer, now)]))
    return peers.filter((peer) => {
      const { since, sightings } = this.#observations.get(peer.id) as Observation
      const limitMs = Math.max(this.#deadAfterMs, peer.deadAfterMs) - this.#allowanceMs
      return sightings >= LEAST_SIGHTINGS && now - since >= limitMs
    })
  }

  /** A beat failed: whatever was seen before says nothing any more. */
  restart(): void {
    this.#observations = new Map()
    this.#lastBeat = undefined
  }
}

function continued(before: Observation | undefined, peer: Peer, now: number): Observation {
  if (before?.beat !== peer.beat) return { beat: peer.beat, since: now, sightings: 1 }
  return { ...before, sightings: before.sightings + 1 }
}
