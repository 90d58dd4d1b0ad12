import { spawnSync } from 'node:child_process'
import { createSocket } from 'node:dgram'
import dns from 'node:dns/promises'
import { EventEmitter, once } from 'node:events'
import { connect } from 'node:net'
import { Worker } from 'node:worker_threads'
import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished } from 'vitest'
import { guard } from '../../src/guard/index.ts'
import { testUrl } from '../support/database-url.ts'
import { useScene } from './scene.ts'

const scene = useScene()

scene.calls(
  'open-socket',
  async (socket) => {
    socket.write(`GET / HTTP/1.1\r\nHost: ${scene.host}\r\n\r\n`)
    await once(socket, 'data')
  },
  async () => {
    const [host, port] = scene.host.split(':')
    const socket = connect(Number(port), host)
    onTestFinished(() => {
      socket.destroy()
    })
    await once(socket, 'connect')
    return socket
  },
)

scene.calls(
  'open-udp-socket',
  (socket) => new Promise((resolve) => socket.send('text', 9, '127.0.0.1', resolve)),
  async () => {
    const socket = createSocket('udp4')
    onTestFinished(() => {
      socket.close()
    })
    return socket
  },
)

scene.calls('dns', () => dns.lookup('localhost'))

scene.calls('spawn-sync', () => spawnSync(process.execPath, ['-e', '']))

scene.calls('worker-thread', async () => {
  const worker = new Worker(`fetch('${scene.url}').then(() => process.exit(0))`, { eval: true })
  await once(worker, 'exit')
  expect(scene.requests).toHaveLength(1)
})

scene.calls(
  'context-lost',
  async (queue) => {
    queue.jobs.push(() => fetch(scene.url))
    queue.events.emit('job')
    await once(queue.events, 'done')
    expect(scene.requests).toHaveLength(1)
  },
  async () => {
    const [events, jobs] = [new EventEmitter(), [] as (() => Promise<unknown>)[]]
    // One loop, begun outside, runs what it is given.
    void (async () => {
      await once(events, 'job')
      await jobs[0]?.()
      events.emit('done')
    })()
    return { events, jobs }
  },
)

function guardedPool(): pg.Pool {
  const pool = guard(new pg.Pool({ connectionString: testUrl(), max: 2 }))
  onTestFinished(() => pool.end())
  return pool
}

scene.row('begin-elsewhere', async () => {
  const pool = guardedPool()
  const begin = async () => {
    const client = await pool.connect()
    await client.query('BEGIN')
    return client
  }
  const client = await begin()
  await scene.mark(client)
  await fetch(scene.url)
  await client.query('COMMIT')
  client.release()
})

scene.row('drizzle-unguarded', () =>
  drizzle(guardedPool()).transaction(async (tx) => {
    await tx.execute(sql.raw(`INSERT INTO ${scene.table} VALUES ('mark')`))
    await fetch(scene.url)
  }),
)
