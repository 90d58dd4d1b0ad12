import { randomBytes } from 'node:crypto'
import { createServer } from 'node:net'
import { Writable } from 'node:stream'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createEngine, defineTask, type Engine, unchecked } from '../src/index.ts'
import { createLog, logTelemetry } from '../src/log.ts'
import { useEngines } from './support/engines.ts'
import { serverAddress, startFaultProxy } from './support/fault-proxy.ts'
import { jobIn } from './support/jobs.ts'
import { errorResponse } from './support/pg-wire.ts'
import { eventually } from './support/processes.ts'

const bench = useEngines()

const SECRET = 'hunter2-very-secret'
const role = `secret_${randomBytes(4).toString('hex')}`
beforeAll(() => bench.schema.database.query(`CREATE ROLE ${role} SUPERUSER LOGIN PASSWORD '${SECRET}'`))
afterAll(() => bench.schema.database.query(`DROP ROLE ${role}`))

/** Everything that an engine says of itself: its events, and the log of them in both forms. */
function listen(engine: Engine<never>): () => string {
  const said: string[] = []
  engine.telemetry.onAny((name, event) =>
    said.push(name, inspect(event, { depth: 20 }), JSON.stringify(event)),
  )
  for (const format of ['human', 'json'] as const) {
    const destination = new Writable({
      write(chunk, _encoding, done) {
        said.push(String(chunk))
        done()
      },
    })
    logTelemetry(engine.telemetry, createLog({ format, level: 'debug', destination }))
  }
  return () => said.join('\n')
}

/** All that a program would print of an error, its causes and their properties included. */
async function printed(failing: Promise<unknown>): Promise<string> {
  const error = await failing.then(
    () => {
      throw new Error('it did not fail')
    },
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(Error)
  return [inspect(error, { depth: 20 }), JSON.stringify(error), String((error as Error).stack)].join('\n')
}

const task = defineTask({
  name: 'task',
  input: unchecked<string>(),
  maxAttempts: 1,
  run: ({ input }) => (input === 'fails' ? Promise.reject(new Error('failed')) : input),
})

/** A server that asks for the password and refuses it. */
async function refusingServer(): Promise<{ port: number; received: () => string; close: () => void }> {
  let received = ''
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.write(Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3]))
      socket.on('data', (password) => {
        received += password
        socket.end(errorResponse('28P01', `password authentication failed for user "${role}"`))
      })
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  return { port, received: () => received, close: () => server.close() }
}

test('a password that is refused', async () => {
  const server = await refusingServer()
  const engine = createEngine({
    url: `postgres://${role}:${SECRET}@127.0.0.1:${server.port}/db`,
    tasks: [task],
  })
  const said = listen(engine as never)
  const failing = [
    engine.start(),
    engine.migrate(),
    engine.enqueue(task, 'x'),
    engine.transaction(async () => {}),
  ]
  for (const text of await Promise.all(failing.map(printed))) {
    expect(text).toMatch(/password authentication failed/)
    expect(text).not.toContain(SECRET)
  }
  await engine.stop()
  server.close()
  expect(server.received()).toContain(SECRET)
  expect(said()).not.toContain(SECRET)
})

test('a server that refuses connections', async () => {
  const engine = createEngine({ url: `postgres://${role}:${SECRET}@127.0.0.1:1/db`, tasks: [task] })
  const said = listen(engine as never)
  const failing = [engine.start(), engine.enqueue(task, 'x'), engine.transaction(async () => {})]
  for (const text of await Promise.all(failing.map(printed))) {
    expect(text).toMatch(/ECONNREFUSED/)
    expect(text).not.toContain(SECRET)
  }
  await engine.stop()
  expect(said()).not.toContain(SECRET)
})

describe('a URL that is not taken', () => {
  test.each([
    ['of another kind', `mysql://${role}:${SECRET}@localhost/db`],
    ['that cannot be read', `postgres://${role}:${SECRET}@localhost:99999/db`],
    ['whose password is not encoded', `postgres://${role}:pass#${SECRET}@localhost/db`],
  ])('%s', async (_how, url) => {
    for (const options of [
      { url },
      { url: 'postgres://localhost/db', directUrl: url, engine: { url }, application: { url } },
    ]) {
      const text = await printed((async () => createEngine(options))())
      expect(text).toMatch(/INVALID_CONFIG/)
      expect(text).not.toContain(SECRET)
    }
  })
})

test('an engine at work, through failures of all kinds', async () => {
  const url = new URL(bench.schema.url)
  url.username = role
  url.password = SECRET
  const proxy = await startFaultProxy(serverAddress(url.href))
  const engine = bench.engine({
    url: proxy.url(url.href),
    tasks: [task],
    queues: { default: 2 },
    heartbeat: 100,
    deadAfter: 300,
  })
  const said = listen(engine as never)
  await engine.start()
  const done = await engine.enqueue(task, 'done')
  const fails = await engine.enqueue(task, 'fails')
  await jobIn(engine, done.id, 'completed')
  await jobIn(engine, fails.id, 'discarded')
  proxy.refuse(true)
  proxy.cutAll()
  await eventually(() => said().includes('heartbeat:failed') && said().includes('notifier:changed'))
  expect(await printed(engine.enqueue(task, 'x'))).not.toContain(SECRET)
  expect(await printed(engine.transaction(async () => {}))).not.toContain(SECRET)
  proxy.refuse(false)
  const again = await eventually(() => engine.enqueue(task, 'again'))
  await jobIn(engine, again.id, 'completed')
  await engine.stop()
  await proxy.close()
  expect(said()).toContain('job:discarded')
  expect(said()).not.toContain(SECRET)
})
