import type { Behaviour } from './api-behaviour.ts'

export interface CallRecord {
  readonly key: string
  readonly idempotencyKey: string | undefined
  /** `aborted`: the caller went away before its answer. `cut`: the API ended the connection. */
  readonly outcome: 'pending' | 'answered' | 'aborted' | 'cut'
}

/** Which calls a behaviour is for: all of them, or one key's; always, or a number of times. */
export interface Scope {
  readonly key?: string
  readonly times?: number
}

export interface HeldCalls {
  readonly arrived: Promise<void>
  readonly released: Promise<Behaviour>
  arrive(): void
  release(behaviour?: Behaviour): void
}

type Setting = { behaviour: Behaviour | HeldCalls; left: number }
type OpenRecord = { -readonly [Field in keyof CallRecord]: CallRecord[Field] }

/** The calls that were made, and how the next ones are treated. */
export class CallBook {
  readonly log: OpenRecord[] = []
  /** By key; `undefined` is for the keys without a setting of their own. */
  readonly #settings = new Map<string | undefined, Setting>()

  get aborted(): number {
    return this.log.filter((call) => call.outcome === 'aborted').length
  }

  callsFor(key: string): number {
    return this.log.filter((call) => call.key === key).length
  }

  record(key: string, idempotencyKey: string | undefined): OpenRecord {
    const call: OpenRecord = { key, idempotencyKey, outcome: 'pending' }
    this.log.push(call)
    return call
  }

  behave(behaviour: Behaviour, { key, times = Number.POSITIVE_INFINITY }: Scope = {}): void {
    this.#settings.set(key, { behaviour, left: times })
  }

  hold(key: string | undefined): HeldCalls {
    const held = heldCalls(() => {
      if (this.#settings.get(key)?.behaviour === held) this.#settings.delete(key)
    })
    this.#settings.set(key, { behaviour: held, left: Number.POSITIVE_INFINITY })
    return held
  }

  /** The behaviour for the next call of a key, used up by one. */
  take(key: string): Behaviour | HeldCalls {
    const scope = this.#settings.has(key) ? key : undefined
    const setting = this.#settings.get(scope)
    if (!setting) return { kind: 'answer' }
    setting.left -= 1
    if (setting.left <= 0) this.#settings.delete(scope)
    return setting.behaviour
  }

  reset(): void {
    this.log.length = 0
    this.#settings.clear()
  }
}

function heldCalls(onRelease: () => void): HeldCalls {
  let arrive = () => {}
  let release: (behaviour: Behaviour) => void = () => {}
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve
  })
  const released = new Promise<Behaviour>((resolve) => {
    release = resolve
  })
  return {
    arrived,
    released,
    arrive: () => arrive(),
    release(behaviour = { kind: 'answer' }) {
      onRelease()
      release(behaviour)
    },
  }
}
