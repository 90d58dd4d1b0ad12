interface Message {
  kind: string
  data: unknown
}

/** The channel to another process; `process` itself and what `fork` returns both have it. */
export interface Channel {
  send?: ((message: Message) => boolean) | undefined
  on(event: 'message', listener: (message: unknown) => void): unknown
}

/** Messages between the benchmark and a process that it measures. A message waits until somebody asks for its kind. */
export class Conversation {
  readonly #channel: Channel
  readonly #unread = new Map<string, unknown[]>()
  readonly #waiting = new Map<string, PromiseWithResolvers<unknown>>()
  #broken: Error | undefined

  constructor(channel: Channel) {
    this.#channel = channel
    channel.on('message', (message) => this.#received(message as Message))
  }

  tell(kind: string, data: unknown = null): void {
    if (!this.#channel.send) throw new Error('This program is started by a benchmark, not by hand.')
    this.#channel.send({ kind, data })
  }

  /** The next message of a kind, oldest first. Its sender and its reader agree on what it carries. */
  heard<Data = null>(kind: string): Promise<Data> {
    const unread = this.#unread.get(kind)
    if (unread && unread.length > 0) return Promise.resolve(unread.shift() as Data)
    if (this.#broken) return Promise.reject(this.#broken)
    const waiting = Promise.withResolvers<unknown>()
    this.#waiting.set(kind, waiting)
    return waiting.promise as Promise<Data>
  }

  /** Nothing more will come. */
  breakOff(reason: Error): void {
    this.#broken = reason
    for (const { reject } of this.#waiting.values()) reject(reason)
    this.#waiting.clear()
  }

  #received({ kind, data }: Message): void {
    const waiting = this.#waiting.get(kind)
    this.#waiting.delete(kind)
    if (waiting) waiting.resolve(data)
    else this.#unread.set(kind, [...(this.#unread.get(kind) ?? []), data])
  }
}
