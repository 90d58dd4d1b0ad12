import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { expect } from 'vitest'
import { eventually } from '../support/processes.ts'
import { useScene } from './scene.ts'

const scene = useScene()

scene.calls('tcp-socket', async () => {
  const [host, port] = scene.host.split(':')
  const socket = connect(Number(port), host)
  await once(socket, 'connect')
  socket.destroy()
})

// The handshake fails: the connection has been made by then.
scene.calls('tls-socket', async () => {
  const [host, port] = scene.host.split(':')
  await once(connectTls(Number(port), host), 'error')
})

scene.calls('udp-socket', async () => {
  const socket = createSocket('udp4')
  await new Promise((resolve) => socket.send('secret', 9, '127.0.0.1', resolve))
  socket.close()
})

scene.calls('child-process', () => once(spawn(process.execPath, ['-e', '"secret"']), 'exit'))

scene.calls('ten-frames-deep', async () => {
  const down = async (frames: number): Promise<unknown> => {
    await null
    return frames === 0 ? fetch(scene.url) : down(frames - 1)
  }
  await down(10)
})

scene.row('awaited-outside', async () => {
  const { call } = await scene.transaction(async () => ({ call: fetch(scene.url) }))
  await call
})

scene.calls('caught', () => fetch(scene.url, { signal: AbortSignal.timeout(1) }).catch(() => {}))

scene.row('nested-transaction', () =>
  scene.transaction(() => scene.engine.transaction((tx) => tx.query('SELECT 1'))),
)

scene.row('max-hold', () => scene.transaction(() => delay(80), { maxHold: 50 }))

scene.row('blocked', () =>
  scene.engine.transaction(
    async (tx) => {
      await scene.mark(tx)
      const began = performance.now()
      while (performance.now() - began < 60);
    },
    { maxHold: 50 },
  ),
)

scene.row('last-moment', async () => {
  await scene.engine.transaction(async (tx) => {
    await scene.mark(tx)
    // As deep in promises as an SDK: when it calls, the work is done and COMMIT has been sent.
    void (async () => {
      for (let turn = 0; turn < 100; turn++) await null
      await fetch(scene.url)
    })()
  })
  await eventually(() => expect(scene.requests).toHaveLength(1))
})
