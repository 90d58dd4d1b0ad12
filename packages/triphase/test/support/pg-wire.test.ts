import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FlightReader } from './flights.ts'
import {
  FrameReader,
  frame,
  ProtocolError,
  queryMessage,
  readBind,
  readParse,
  readQuery,
  startupKind,
  startupParameters,
} from './pg-wire.ts'

function startup(code: number, body: string): Buffer {
  const header = Buffer.alloc(8)
  header.writeUInt32BE(8 + Buffer.byteLength(body), 0)
  header.writeUInt32BE(code, 4)
  return Buffer.concat([header, Buffer.from(body)])
}

function read(reader: FrameReader, chunks: Buffer[]): Buffer[] {
  const frames: Buffer[] = []
  for (const chunk of chunks) {
    reader.push(chunk)
    for (let next = reader.next(); next; next = reader.next()) frames.push(next.bytes)
  }
  return frames
}

function split(bytes: Buffer, cuts: number[]): Buffer[] {
  const edges = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]
  return edges.slice(1).map((edge, i) => bytes.subarray(edges[i], edge))
}

describe('messages', () => {
  it('are whole however the packets fell', () => {
    const messages = fc.array(
      fc
        .tuple(fc.constantFrom('P', 'B', 'E', 'S', 'Q', 'd'), fc.uint8Array({ maxLength: 40 }))
        .map(([type, body]) => frame(type, Buffer.from(body))),
    )
    fc.assert(
      fc.property(messages, fc.array(fc.nat(), { maxLength: 60 }), (sent, cuts) => {
        const received = read(new FrameReader('typed'), split(Buffer.concat(sent), cuts))
        expect(received).toEqual(sent)
      }),
    )
  })

  it('have no type before the session starts', () => {
    const reader = new FrameReader('startup')
    reader.push(startup(80877103, ''))
    expect(startupKind(reader.next()!)).toBe('encrypt')
    const packet = startup(196608, 'user\0me\0application_name\0wörker\0\0')
    reader.push(Buffer.concat([packet, queryMessage('SELECT 1')]))
    const session = reader.next()!
    expect(startupKind(session)).toBe('session')
    expect([...startupParameters(session)]).toEqual([
      ['user', 'me'],
      ['application_name', 'wörker'],
    ])
    reader.expectTyped()
    const query = reader.next()!
    expect(query.type).toBe('Q')
    expect(readQuery(query)).toBe('SELECT 1')
    expect(reader.next()).toBeUndefined()
  })

  it('are refused when their length or text is impossible', () => {
    const reader = new FrameReader('typed')
    reader.push(Buffer.from('GET / HTTP/1.1\r\n'))
    expect(() => reader.next()).toThrow(ProtocolError)
    expect(() => readQuery({ type: 'Q', bytes: frame('Q', 'SELECT') })).toThrow(ProtocolError)
  })

  it('carry the names and the SQL of statements', () => {
    expect(readParse({ type: 'P', bytes: frame('P', 'name\0SELECT $1\0\0\0') })).toEqual({
      name: 'name',
      sql: 'SELECT $1',
    })
    expect(readBind({ type: 'B', bytes: frame('B', 'portal\0name\0\0\0') })).toBe('name')
  })
})

describe('flights', () => {
  const parse = { type: 'P', bytes: frame('P', '\0SELECT 1\0\0\0') }
  const bind = { type: 'B', bytes: frame('B', '\0\0\0\0\0\0\0\0') }
  const sync = { type: 'S', bytes: frame('S', '') }
  const flush = { type: 'H', bytes: frame('H', '') }

  it('end at Sync, with the statements that they run', () => {
    const reader = new FlightReader()
    expect([parse, bind].map((message) => reader.add(message))).toEqual([undefined, undefined])
    expect(reader.add(sync)).toMatchObject({ statements: ['SELECT 1'], last: true })
    expect(reader.add(sync)).toMatchObject({ statements: [], last: true, bytes: sync.bytes })
  })

  it('go on after Flush, which does not wait', () => {
    const reader = new FlightReader()
    reader.add(parse)
    const first = reader.add(flush)
    expect(first).toMatchObject({ statements: [], last: false })
    reader.add(bind)
    const second = reader.add(sync)
    expect(second).toMatchObject({ statements: ['SELECT 1'], last: true })
    expect(second?.flight).toBe(first?.flight)
  })
})
