import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from 'node:crypto'
import { connect, type Socket } from 'node:net'

/** The superuser of every cluster that this package makes. */
export const SUPERUSER = 'postgres'

const TIMEOUT_MILLISECONDS = 15_000
const PROTOCOL_3_0 = 196_608

export interface Server {
  port: number
  password: string
}

/** An error that the server answered with, for example 3D000 when the database does not exist. */
export class ServerRefusal extends Error {
  readonly sqlState: string

  constructor(sqlState: string, message: string) {
    super(`${message} (SQLSTATE ${sqlState})`)
    this.sqlState = sqlState
  }
}

/**
 * Connects, authenticates (SCRAM-SHA-256), runs one statement and disconnects. Returns the number of rows.
 *
 * The platform packages ship no psql, and a driver as a dependency for one `CREATE DATABASE` would be out of proportion.
 */
export async function countRows(server: Server, statement: string): Promise<number> {
  const socket = connect({ host: '127.0.0.1', port: server.port })
  socket.setTimeout(TIMEOUT_MILLISECONDS, () =>
    socket.destroy(new Error('The server did not answer in time')),
  )
  try {
    return await converse(socket, server.password, statement)
  } finally {
    socket.destroy()
  }
}

async function converse(socket: Socket, password: string, statement: string): Promise<number> {
  socket.write(startupMessage())
  const scram = scramExchange(password)
  let asked = false
  let rows = 0
  for await (const { type, body } of messagesFrom(socket)) {
    if (type === 'E') throw refusal(body)
    if (type === 'R') answerAuthentication(socket, scram, body)
    if (type === 'D') rows++
    if (type === 'Z' && asked) return rows
    if (type === 'Z') {
      asked = true
      socket.write(message('Q', Buffer.from(`${statement}\0`)))
    }
  }
  throw new Error('The server closed the connection')
}

async function* messagesFrom(socket: Socket): AsyncGenerator<{ type: string; body: Buffer }> {
  let pending: Buffer = Buffer.alloc(0)
  for await (const chunk of socket) {
    pending = Buffer.concat([pending, chunk])
    while (pending.length >= 5 && pending.length > pending.readUInt32BE(1)) {
      const end = 1 + pending.readUInt32BE(1)
      yield { type: pending.toString('latin1', 0, 1), body: pending.subarray(5, end) }
      pending = pending.subarray(end)
    }
  }
}

interface ScramExchange {
  first: string
  /** The client's last word, given the server's first. */
  final(serverFirst: string): string
  /** Throws unless the server proved that it knows the password too. */
  verify(serverFinal: string): void
}

function answerAuthentication(socket: Socket, scram: ScramExchange, body: Buffer): void {
  const kind = body.readInt32BE(0)
  const data = body.toString('utf8', 4)
  if (kind === 10) {
    const first = Buffer.from(scram.first)
    const size = Buffer.alloc(4)
    size.writeInt32BE(first.length)
    socket.write(message('p', Buffer.concat([Buffer.from('SCRAM-SHA-256\0'), size, first])))
  } else if (kind === 11) socket.write(message('p', Buffer.from(scram.final(data))))
  else if (kind === 12) scram.verify(data)
  else if (kind !== 0) throw new Error(`The server asks for an authentication that is not SCRAM (${kind})`)
}

/** RFC 5802 and RFC 7677, without channel binding. */
function scramExchange(password: string): ScramExchange {
  const nonce = randomBytes(18).toString('base64')
  const firstBare = `n=,r=${nonce}`
  let expected = ''
  return {
    first: `n,,${firstBare}`,
    final(serverFirst) {
      const [, combined = '', salt = '', rounds = ''] = /^r=([^,]+),s=([^,]+),i=(\d+)/.exec(serverFirst) ?? []
      if (!combined.startsWith(nonce)) throw new Error('The server answered with a nonce that is not ours')
      const withoutProof = `c=biws,r=${combined}`
      const signed = `${firstBare},${serverFirst},${withoutProof}`
      const salted = pbkdf2Sync(password, Buffer.from(salt, 'base64'), Number(rounds), 32, 'sha256')
      const clientKey = hmac(salted, 'Client Key')
      const signature = hmac(createHash('sha256').update(clientKey).digest(), signed)
      expected = `v=${hmac(hmac(salted, 'Server Key'), signed).toString('base64')}`
      const proof = Buffer.from(clientKey.map((byte, index) => byte ^ signature[index]!))
      return `${withoutProof},p=${proof.toString('base64')}`
    },
    verify(serverFinal) {
      const same = serverFinal.length === expected.length
      if (!same || !timingSafeEqual(Buffer.from(serverFinal), Buffer.from(expected)))
        throw new Error('The server does not know the password of this cluster')
    },
  }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}

function startupMessage(): Buffer {
  const parameters = ['user', SUPERUSER, 'database', 'postgres', 'application_name', 'triphase-embedded']
  const text = Buffer.from(`${parameters.join('\0')}\0\0`)
  const head = Buffer.alloc(8)
  head.writeInt32BE(8 + text.length, 0)
  head.writeInt32BE(PROTOCOL_3_0, 4)
  return Buffer.concat([head, text])
}

function message(type: string, body: Buffer): Buffer {
  const head = Buffer.alloc(5)
  head.write(type, 0, 'latin1')
  head.writeInt32BE(4 + body.length, 1)
  return Buffer.concat([head, body])
}

function refusal(body: Buffer): ServerRefusal {
  const fields = new Map(
    body
      .toString('utf8')
      .split('\0')
      .map((field) => [field.slice(0, 1), field.slice(1)]),
  )
  return new ServerRefusal(fields.get('C') ?? '', fields.get('M') ?? 'The server refused')
}
