import { connect, type Socket } from 'node:net'
import type { FaultRule } from './fault-rules.ts'
import { type Flight, FlightReader, newFlight, type Unit } from './flights.ts'
import {
  errorResponse,
  type Frame,
  FrameReader,
  notEncrypted,
  ProtocolError,
  queryMessage,
  startupKind,
  startupParameters,
} from './pg-wire.ts'

export interface SessionOptions {
  readonly server: { readonly host: string; readonly port: number }
  readonly frozen: boolean
  /** Sees every unit with statements, and names the fault that the flight gets, if any. */
  readonly choose: (unit: Unit, applicationName: string) => FaultRule | undefined
  readonly onClosed: (session: FaultSession) => void
}

interface Reply {
  readonly bytes: Buffer
  readonly flight: Flight | undefined
}

const endsTransaction = /^\s*(commit|end|prepare\s+transaction)\b/i
/** Notifications and changed settings: they come at any time and are no part of a reply. */
const asynchronous = new Set(['A', 'S'])
/** CopyInResponse: never held, because the client sends its rows, without which the reply does not end, when it sees it. */
const copyIn = 'G'

/**
 * One client's connection and the one to the server that stands for it. All bytes go through two queues, `inbox` (to the
 * server) and `outbox` (to the client): a hold stops the queue at its head, so nothing overtakes what is held.
 */
export class FaultSession {
  isCancel = false
  applicationName = ''
  readonly #client: Socket
  readonly #options: SessionOptions
  readonly #fromClient = new FrameReader('startup')
  readonly #fromServer = new FrameReader('typed')
  readonly #flights = new FlightReader()
  readonly #inbox: Unit[] = []
  readonly #outbox: Reply[] = []
  /** Flights that the server has and has not yet answered with ReadyForQuery, oldest first. */
  readonly #awaiting: Flight[] = []
  #server: Socket | undefined
  #started = false
  #frozen = false
  #cutting = false
  #clientGone = false
  #serverGone = false

  constructor(client: Socket, options: SessionOptions) {
    this.#client = client
    this.#options = options
    client.setNoDelay(true)
    client.on('data', (chunk) => this.#read(chunk, this.#fromClient, (frame) => this.#onClientFrame(frame)))
    client.on('error', () => {})
    for (const gone of ['end', 'close']) client.on(gone, () => this.#onClientGone())
    if (options.frozen) this.freeze(true)
  }

  /** Both sides are destroyed now; what is queued or held is lost. */
  cut(reset = false): void {
    this.#inbox.length = 0
    this.#outbox.length = 0
    this.#clientGone = true
    this.#serverGone = true
    // Replies before the cut, which came in the same packet as its cause, still go out.
    this.#client.uncork()
    if (reset) this.#client.resetAndDestroy()
    else this.#client.destroy()
    this.#server?.destroy()
    this.#options.onClosed(this)
  }

  /** Neither side hears anything from the other, not even that it is gone. */
  freeze(on: boolean): void {
    this.#frozen = on
    if (on) {
      this.#client.pause()
      this.#server?.pause()
      return
    }
    this.#client.resume()
    this.#server?.resume()
    this.#pump()
  }

  #read(chunk: Buffer, reader: FrameReader, onFrame: (frame: Frame) => void): void {
    reader.push(chunk)
    this.#client.cork()
    try {
      for (let next = reader.next(); next; next = reader.next()) onFrame(next)
      this.#pump()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.cut()
    } finally {
      this.#client.uncork()
    }
  }

  #onClientFrame(frame: Frame): void {
    if (this.#clientGone) return
    if (this.#started) this.#onMessage(frame)
    else this.#onStartup(frame)
  }

  #onMessage(frame: Frame): void {
    const unit = this.#flights.add(frame)
    if (!unit) return
    const rule = unit.statements.length > 0 ? this.#options.choose(unit, this.applicationName) : undefined
    this.#inbox.push(unit)
    if (rule) this.#apply(rule, unit)
    this.#pump()
  }

  #onStartup(frame: Frame): void {
    const kind = startupKind(frame)
    if (kind === 'encrypt') {
      this.#client.write(notEncrypted)
      return
    }
    this.#started = true
    this.#fromClient.expectTyped()
    this.isCancel = kind === 'cancel'
    if (!this.isCancel) this.applicationName = startupParameters(frame).get('application_name') ?? ''
    this.#server = this.#connect()
    // The session begins with a ReadyForQuery too, so the startup packet is a flight.
    this.#inbox.push({ flight: newFlight(), statements: [], last: true, bytes: frame.bytes, held: false })
  }

  #connect(): Socket {
    const server = connect({ ...this.#options.server, allowHalfOpen: true })
    server.setNoDelay(true)
    server.on('data', (chunk) => this.#read(chunk, this.#fromServer, (frame) => this.#onServerFrame(frame)))
    server.on('error', () => {})
    for (const gone of ['end', 'close']) server.on(gone, () => this.#onServerGone())
    return server
  }

  #apply(rule: FaultRule, unit: Unit): void {
    unit.flight.rule = rule
    if (rule.fault === 'cut-before') {
      this.cut(rule.reset)
      rule.tookEffect()
    } else if (rule.fault === 'hold-before') {
      unit.held = true
      rule.onRelease(() => {
        unit.held = false
        this.#pump()
      })
      rule.tookEffect()
    } else if (rule.fault === 'hold-reply') {
      unit.flight.replyHeld = true
      rule.onRelease(() => {
        unit.flight.replyHeld = false
        this.#pump()
      })
    } else if (rule.fault === 'error') {
      unit.bytes = substitute(unit.statements)
    }
  }

  #onServerFrame(frame: Frame): void {
    const flight = this.#awaiting[0]
    const ready = frame.type === 'Z'
    if (ready) this.#awaiting.shift()
    const rule = flight?.rule
    if (rule?.fault === 'cut-after') this.#swallow(rule, frame)
    else if (rule?.fault === 'error') this.#replaceReply(rule, frame)
    else this.#outbox.push({ bytes: frame.bytes, flight: frame.type === copyIn ? undefined : flight })
    this.#pump()
    if (ready && rule?.fault === 'hold-reply') rule.tookEffect()
  }

  #swallow(rule: FaultRule, frame: Frame): void {
    if (frame.type === copyIn) {
      this.#outbox.push({ bytes: frame.bytes, flight: undefined })
      this.#cutting = false
    }
    if (frame.type !== 'Z') return
    this.cut(rule.reset)
    rule.tookEffect()
  }

  #replaceReply(rule: FaultRule, frame: Frame): void {
    const ready = frame.type === 'Z'
    if (ready) this.#outbox.push({ bytes: errorResponse(rule.sqlstate, rule.message), flight: undefined })
    if (ready || asynchronous.has(frame.type)) this.#outbox.push({ bytes: frame.bytes, flight: undefined })
    if (ready) rule.tookEffect()
  }

  #onClientGone(): void {
    this.#clientGone = true
    this.#pump()
  }

  #onServerGone(): void {
    this.#serverGone = true
    this.#pump()
  }

  #pump(): void {
    if (this.#frozen) return
    this.#pumpToServer()
    this.#pumpToClient()
    const serverGone = this.#serverGone || !this.#server
    if (this.#clientGone && serverGone) {
      this.#client.destroySoon()
      this.#server?.destroy()
      this.#options.onClosed(this)
    }
  }

  #pumpToServer(): void {
    const server = this.#server
    if (!server) return
    while (this.#inbox[0] && !this.#inbox[0].held && !this.#cutting) {
      const { flight, bytes } = this.#inbox.shift()!
      if (this.#awaiting.at(-1) !== flight) this.#awaiting.push(flight)
      this.#write(server, this.#client, bytes)
      // What is pipelined behind the statement must not run: its client will not be there.
      this.#cutting = flight.rule?.fault === 'cut-after'
    }
    if (this.#clientGone && this.#inbox.length === 0 && server.writable) {
      server.end()
      server.resume()
    }
  }

  #pumpToClient(): void {
    while (this.#outbox[0] && !this.#outbox[0].flight?.replyHeld) {
      this.#write(this.#client, this.#server, this.#outbox.shift()!.bytes)
    }
    if (this.#serverGone && this.#outbox.length === 0 && this.#client.writable) {
      this.#client.end()
      this.#client.resume()
    }
  }

  /** A side that does not read stops the other side's writing, as the network would. */
  #write(to: Socket, from: Socket | undefined, bytes: Buffer): void {
    if (!to.writable || to.write(bytes) || !from || from.isPaused()) return
    from.pause()
    to.once('drain', () => {
      if (!this.#frozen) from.resume()
    })
  }
}

/**
 * What runs in place of a statement that is to fail, so that the server's transaction is where the client's error says it
 * is: a failed COMMIT has ended it, any other failure has aborted it.
 */
function substitute(statements: readonly string[]): Buffer {
  const ends = statements.some((sql) => endsTransaction.test(sql))
  return queryMessage(ends ? 'ROLLBACK' : 'fault injected in place of a statement')
}
