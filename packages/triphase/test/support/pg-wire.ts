/** One whole protocol message, header included. A startup packet has no type byte: its type is ''. */
export interface Frame {
  readonly type: string
  readonly bytes: Buffer
}

/** The peer does not speak the protocol. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** Cuts a byte stream into protocol messages, however the packets fell. */
export class FrameReader {
  readonly #chunks: Buffer[] = []
  #length = 0
  #headerLength: 4 | 5

  constructor(first: 'startup' | 'typed') {
    this.#headerLength = first === 'typed' ? 5 : 4
  }

  /** After its StartupMessage a client's messages have a type byte. */
  expectTyped(): void {
    this.#headerLength = 5
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#length += chunk.length
  }

  next(): Frame | undefined {
    if (this.#length < this.#headerLength) return undefined
    const header = this.#first(this.#headerLength)
    const typed = this.#headerLength === 5
    const length = header.readUInt32BE(typed ? 1 : 0)
    if (length < 4 || length > 0x3fffffff)
      throw new ProtocolError(`Not a Postgres message: its length is ${length}`)
    const total = length + (typed ? 1 : 0)
    if (this.#length < total) return undefined
    return { type: typed ? String.fromCharCode(header[0]!) : '', bytes: this.#take(total) }
  }

  /** Joins chunks only when a message spans them, so that a large message is copied once. */
  #first(count: number): Buffer {
    const first = this.#chunks[0]!
    if (first.length >= count) return first
    const joined = Buffer.concat(this.#chunks)
    this.#chunks.splice(0, this.#chunks.length, joined)
    return joined
  }

  #take(count: number): Buffer {
    const first = this.#first(count)
    if (first.length === count) this.#chunks.shift()
    else this.#chunks[0] = first.subarray(count)
    this.#length -= count
    return first.subarray(0, count)
  }
}

const codes: Record<number, 'cancel' | 'encrypt'> = {
  80877102: 'cancel',
  80877103: 'encrypt', // SSLRequest
  80877104: 'encrypt', // GSSENCRequest
}

export function startupKind(startup: Frame): 'session' | 'cancel' | 'encrypt' {
  return codes[startup.bytes.readUInt32BE(4)] ?? 'session'
}

export function startupParameters(startup: Frame): Map<string, string> {
  const words = startup.bytes.toString('utf8', 8).split('\0')
  const parameters = new Map<string, string>()
  for (let i = 0; i + 1 < words.length && words[i] !== ''; i += 2) parameters.set(words[i]!, words[i + 1]!)
  return parameters
}

function strings(bytes: Buffer, count: number): string[] {
  const found: string[] = []
  let from = 5
  while (found.length < count) {
    const to = bytes.indexOf(0, from)
    if (to === -1) throw new ProtocolError('Not a Postgres message: a string in it does not end')
    found.push(bytes.toString('utf8', from, to))
    from = to + 1
  }
  return found
}

export function readQuery(query: Frame): string {
  return strings(query.bytes, 1)[0]!
}

export function readParse(parse: Frame): { name: string; sql: string } {
  const [name, sql] = strings(parse.bytes, 2)
  return { name: name!, sql: sql! }
}

/** The name of the prepared statement that a Bind runs; '' is the unnamed one. */
export function readBind(bind: Frame): string {
  return strings(bind.bytes, 2)[1]!
}

export function frame(type: string, body: Buffer | string): Buffer {
  const payload = Buffer.from(body)
  const header = Buffer.alloc(5)
  header.write(type, 'latin1')
  header.writeUInt32BE(payload.length + 4, 1)
  return Buffer.concat([header, payload])
}

export function queryMessage(sql: string): Buffer {
  return frame('Q', `${sql}\0`)
}

export function errorResponse(sqlstate: string, message: string): Buffer {
  return frame('E', `SERROR\0VERROR\0C${sqlstate}\0M${message}\0\0`)
}

/** Postgres's answer to a request for an encrypted session: go on without. */
export const notEncrypted: Buffer = Buffer.from('N')
