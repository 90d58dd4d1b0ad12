import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type pg from 'pg'
import { describe, expect, it, onTestFinished } from 'vitest'
import { testDatabaseUrl } from './database-url.ts'
import { type FaultProxy, serverAddress, startFaultProxy } from './fault-proxy.ts'
import { eventually } from './processes.ts'
import { expectStatus, proxiedDatabase } from './proxied-database.ts'

const db = proxiedDatabase()
const lost = /terminated unexpectedly|ECONNRESET/

function ended(client: pg.Client): Promise<void> {
  return new Promise((resolve) => client.once('end', resolve))
}

/** Sends every byte in a packet of its own, both ways. */
async function startDribble(to: { host: string; port: number }): Promise<Server> {
  const dribble = async (from: Socket, into: Socket) => {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        for (const byte of chunk) await new Promise((resolve) => into.write(Buffer.of(byte), resolve))
      }
    } catch {}
    into.end()
  }
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ ...to, noDelay: true })
    for (const socket of [client, upstream]) socket.on('error', () => {})
    void dribble(client, upstream)
    void dribble(upstream, client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => void server.close())
  return server
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port
}

describe('the way through', () => {
  it('carries large statements and large results', async () => {
    const client = await db.client()
    const text = 'ä'.repeat(3_000_000)
    const { rows } = await client.query('SELECT $1::text AS text', [text])
    expect(rows[0].text === text).toBe(true)
    const series = await client.query('SELECT n FROM generate_series(1, 100000) AS n')
    expect(series.rows.at(-1)).toEqual({ n: 100_000 })
  })

  it('carries errors, transactions and notifications', async () => {
    const client = await db.inTransaction('a')
    await expect(db.insert(client, 'a')).rejects.toMatchObject({ code: '23505' })
    await expectStatus(client, 'E')
    await client.query('ROLLBACK')
    const notified = once(client, 'notification')
    await client.query('LISTEN fault_proxy_test')
    await db.direct.query("SELECT pg_notify('fault_proxy_test', 'hello')")
    expect(await notified).toMatchObject([{ payload: 'hello' }])
  })

  it('holds and cuts by whole messages when each byte is a packet', async () => {
    const behind = await startDribble(serverAddress(testDatabaseUrl()))
    const proxy = await startFaultProxy({ host: '127.0.0.1', port: portOf(behind) })
    onTestFinished(() => proxy.close())
    const before = await startDribble(serverAddress(proxy.url(testDatabaseUrl())))
    const client = await db.client({ connectionString: urlAt(portOf(before)) })
    const held = proxy.onStatement(/^insert/i, 'hold-reply')
    const inserted = db.insert(client, 'a')
    await held.hit
    expect(await db.rows()).toEqual(['a'])
    held.release()
    await inserted
    proxy.onStatement(/^insert/i, 'cut-before')
    await expect(db.insert(client, 'b')).rejects.toThrow(lost)
    expect(await db.rowsAfterSessions()).toEqual(['a'])
  })

  it('tells a client that asks for encryption to go on without', async () => {
    const { host, port } = serverAddress(db.proxy.url(testDatabaseUrl()))
    const socket = connect({ host, port })
    onTestFinished(() => void socket.destroy())
    socket.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]))
    expect(String(await once(socket, 'data'))).toBe('N')
    socket.write(startupPacket(new URL(testDatabaseUrl()).username))
    const [reply] = (await once(socket, 'data')) as [Buffer]
    expect(reply.toString('latin1', 0, 1)).toBe('R')
  })

  it('passes cancel requests on', async () => {
    const client = await db.client()
    const sleeping = client.query("SELECT pg_sleep(60), 'cancelled'")
    const outcome = expect(sleeping).rejects.toMatchObject({ code: '57014' })
    await eventually(async () => {
      const running = `SELECT 1 FROM pg_stat_activity WHERE query LIKE '%''cancelled''%' AND wait_event = 'PgSleep'`
      return (await db.direct.query(running)).rowCount === 1
    })
    cancel(client, db.proxy)
    await outcome
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
  })

  it('does not keep from a client that the server waits for its rows', async () => {
    const client = await db.client()
    const copy = () => client.query('COPY pg_temp.copied FROM STDIN')
    await client.query('CREATE TEMP TABLE copied (n int)')
    const held = db.proxy.onStatement(/^copy/i, 'hold-reply')
    const refused = expect(copy()).rejects.toMatchObject({ code: '57014' })
    await held.hit
    held.release()
    await refused
    db.proxy.onStatement(/^copy/i, 'cut-after')
    await expect(copy()).rejects.toThrow(lost)
  })

  it('passes on what is read in portions, and then knows where the next statement starts', async () => {
    const client = await db.client()
    const portions = { text: 'SELECT n FROM generate_series(1, 5) AS n', rows: 2 }
    expect((await client.query(portions)).rows).toHaveLength(5)
    const held = db.proxy.onStatement(/^insert/i, 'hold-reply')
    const inserted = db.insert(client, 'a')
    await held.hit
    held.release()
    await inserted
    db.proxy.onStatement(/^insert/i, 'cut-after')
    await expect(db.insert(client, 'b')).rejects.toThrow(lost)
    expect(await db.rows()).toEqual(['a', 'b'])
  })

  it('hangs up on a client when the server does', async () => {
    const client = await db.client()
    const end = ended(client)
    const { rows } = await client.query('SELECT pg_backend_pid() AS pid')
    await db.direct.query('SELECT pg_terminate_backend($1)', [rows[0].pid])
    await end
    await eventually(() => expect(db.proxy.connections).toBe(0))
  })

  it('hangs up on what is not the protocol', async () => {
    const { host, port } = serverAddress(db.proxy.url(testDatabaseUrl()))
    const socket = connect({ host, port })
    socket.on('error', () => {})
    socket.write('GET / HTTP/1.1\r\n\r\n')
    await once(socket, 'close')
    expect(db.proxy.connections).toBe(0)
  })
})

describe('cutAll', () => {
  it('destroys every connection', async () => {
    const clients = await Promise.all([db.client(), db.client()])
    expect(db.proxy.connections).toBe(2)
    const ends = clients.map(ended)
    db.proxy.cutAll()
    expect(db.proxy.connections).toBe(0)
    await Promise.all(ends)
    await db.rowsAfterSessions()
    expect(await (await db.client()).query('SELECT 1')).toBeDefined()
  })

  it('destroys those of one application', async () => {
    const engine = await db.client({ application_name: 'x-engine' })
    const app = await db.inTransaction('a', { application_name: 'x' })
    const end = ended(engine)
    db.proxy.cutAll({ applicationName: /^x-engine/ })
    await end
    await app.query('COMMIT')
    expect(db.proxy.connections).toBe(1)
  })
})

describe('refuse', () => {
  it('turns new connections away and keeps the old', async () => {
    const old = await db.client()
    db.proxy.refuse(true)
    await expect(db.client()).rejects.toThrow(lost)
    await old.query('SELECT 1')
    db.proxy.refuse(false)
    await db.client()
  })
})

describe('freeze', () => {
  it('stalls statements until it thaws', async () => {
    const client = await db.client()
    db.proxy.freeze(true)
    const inserted = db.insert(client, 'a')
    const late = db.client({ connectionTimeoutMillis: 200 })
    await expect(late).rejects.toThrow('timeout expired')
    expect(await db.rows()).toEqual([])
    expect(db.proxy.statements).toEqual([])
    db.proxy.freeze(false)
    await inserted
    expect(await db.rows()).toEqual(['a'])
  })

  it('stalls replies, and what is released, until it thaws', async () => {
    const client = await db.client()
    const held = db.proxy.onStatement(/^insert/i, 'hold-before')
    const inserted = db.insert(client, 'a')
    await held.hit
    db.proxy.freeze(true)
    held.release()
    await expect(db.client({ connectionTimeoutMillis: 200 })).rejects.toThrow('timeout expired')
    expect(await db.rows()).toEqual([])
    db.proxy.freeze(false)
    await inserted
  })

  it('tells nobody that the other side is gone', async () => {
    const client = await db.client()
    const { rows } = await client.query('SELECT pg_backend_pid() AS pid')
    let gone = false
    const end = ended(client).then(() => {
      gone = true
    })
    db.proxy.freeze(true)
    await db.direct.query('SELECT pg_terminate_backend($1, 10000)', [rows[0].pid])
    await expect(db.client({ connectionTimeoutMillis: 200 })).rejects.toThrow('timeout expired')
    expect(gone).toBe(false)
    db.proxy.freeze(false)
    await end
  })

  it('does not keep connections from being cut', async () => {
    const end = ended(await db.inTransaction('a'))
    db.proxy.freeze(true)
    db.proxy.cutAll()
    await end
    expect(await db.rowsAfterSessions()).toEqual([])
  })
})

describe('close', () => {
  it('ends the connections, and no new ones come', async () => {
    const client = await db.client()
    const end = ended(client)
    await db.proxy.close()
    await end
    await db.proxy.close()
    await expect(db.client()).rejects.toThrow('ECONNREFUSED')
  })
})

function urlAt(port: number): string {
  const url = new URL(testDatabaseUrl())
  url.host = `127.0.0.1:${port}`
  return url.href
}

function startupPacket(user: string): Buffer {
  const body = Buffer.from(`user\0${user}\0database\0postgres\0\0`)
  const header = Buffer.alloc(8)
  header.writeUInt32BE(body.length + 8, 0)
  header.writeUInt32BE(196608, 4)
  return Buffer.concat([header, body])
}

function cancel(client: pg.Client, proxy: FaultProxy): void {
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: number }
  const packet = Buffer.alloc(16)
  for (const [i, word] of [16, 80877102, processID].entries()) packet.writeUInt32BE(word, i * 4)
  packet.writeInt32BE(secretKey, 12)
  const { host, port } = serverAddress(proxy.url(testDatabaseUrl()))
  connect({ host, port })
    .on('error', () => {})
    .end(packet)
}
