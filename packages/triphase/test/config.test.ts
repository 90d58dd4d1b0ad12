import { describe, expect, test, vi } from 'vitest'
import { type EngineOptions, resolveConfig } from '../src/config.ts'
import {
  createEngine,
  defineStagedTask,
  defineTask,
  type TaskOptions,
  type TriphaseError,
  unchecked,
} from '../src/index.ts'

const url = 'postgres://user:pass@localhost:5432/db'

function refusal(options: unknown): string {
  try {
    resolveConfig(options as EngineOptions)
  } catch (error) {
    expect(error).toMatchObject({ name: 'TriphaseError', code: 'INVALID_CONFIG' })
    return (error as TriphaseError).message
  }
  throw new Error('the options were taken')
}

test('everything has a default but the URL', () => {
  expect(resolveConfig({ url })).toEqual({
    name: 'triphase',
    schema: 'triphase',
    engine: { url, size: 6, acquireTimeoutMs: 15_000 },
    application: { url, size: 10, acquireTimeoutMs: 30_000 },
    directUrl: url,
    queues: new Map(),
    retentionMs: 604_800_000,
    heartbeatMs: 4_000,
    deadAfterMs: 12_000,
    graceMs: 25_000,
    abortGraceMs: 5_000,
    maxAnswerBytes: 16_777_216,
    guard: { mode: 'error', maxHoldMs: 1_000, allow: [] },
  })
})

test("the guard refuses, but where NODE_ENV is 'production'", () => {
  const modeOf = (options: object = {}) => resolveConfig({ url, ...options }).guard.mode
  vi.stubEnv('NODE_ENV', 'production')
  expect([modeOf(), modeOf({ guard: { mode: 'error' } })]).toEqual(['warn', 'error'])
  vi.stubEnv('NODE_ENV', undefined)
  expect([modeOf(), modeOf({ guard: { mode: 'off' } })]).toEqual(['error', 'off'])
  vi.unstubAllEnvs()
  const guard = { maxHold: false, allow: ['a', 'b:1'] } as const
  expect(resolveConfig({ url, guard }).guard).toMatchObject({ maxHoldMs: null, allow: ['a', 'b:1'] })
})

test('each pool may have its own URL, and the engine listens with its own', () => {
  const engine = 'postgres://engine@pooler/db'
  const application = 'postgresql://app@pooler/db'
  expect(
    resolveConfig({ engine: { url: engine }, application: { url: application, size: 3 } }),
  ).toMatchObject({
    engine: { url: engine, size: 6 },
    application: { url: application, size: 3 },
    directUrl: engine,
  })
  const direct = 'postgres://direct/db'
  expect(resolveConfig({ url, engine: { url: engine }, directUrl: direct })).toMatchObject({
    engine: { url: engine },
    application: { url },
    directUrl: direct,
  })
})

test('queues are a number or settings', () => {
  const { queues } = resolveConfig({
    url,
    queues: { a: 3, b: { concurrency: 5 }, c: { concurrency: 1, timeout: '150s' } },
  })
  expect([...queues]).toEqual([
    ['a', { concurrency: 3, timeoutMs: 60_000 }],
    ['b', { concurrency: 5, timeoutMs: 60_000 }],
    ['c', { concurrency: 1, timeoutMs: 150_000 }],
  ])
})

test('what is undefined is the default, in pools too', () => {
  const options = {
    url,
    name: undefined,
    engine: { size: undefined, url: undefined },
    application: undefined,
  }
  expect(resolveConfig(options as never)).toEqual(resolveConfig({ url }))
})

test('the result is frozen', () => {
  expect(Object.isFrozen(resolveConfig({ url }))).toBe(true)
})

test('every fault is named at once', () => {
  const message = refusal({
    url: 'mysql://localhost/db',
    directUrl: 'localhost',
    schema: 'Upper',
    name: '',
    engine: { size: 1, acquireTimeout: 'never', user: 'x' },
    application: { size: 0, url: 'x' },
    queues: { 'a b': 1, c: 0, d: { concurrency: 1, timeout: '0s', retries: 3 }, e: null, f: '3' },
    retention: -1,
    heartbeat: '5s',
    deadAfter: '6s',
    grace: 'short',
    abortGrace: Number.NaN,
    maxAnswerBytes: 0.5,
    poolSize: 5,
  })
  const faults = message.replace('The engine cannot work like this: ', '').split('; ')
  const names = faults.map((fault) => fault.slice(0, fault.indexOf(':')))
  expect(names.toSorted()).toEqual(
    [
      'url',
      'directUrl',
      'schema',
      'name',
      'engine.size',
      'engine.acquireTimeout',
      'engine.user',
      'application.size',
      'application.url',
      'queues.a b',
      'queues.c.concurrency',
      'queues.d.timeout',
      'queues.d.retries',
      'queues.e.concurrency',
      'queues.f.concurrency',
      'retention',
      'deadAfter',
      'grace',
      'abortGrace',
      'maxAnswerBytes',
      'poolSize',
    ].toSorted(),
  )
})

describe('lengths of time that a timer of Node cannot wait are refused', () => {
  test.each<[string, object]>([
    ['heartbeat', { heartbeat: '25d' }],
    ['deadAfter', { deadAfter: '30d' }],
    ['grace', { grace: '60d' }],
    ['abortGrace', { abortGrace: 2_147_483_648 }],
    ['engine.acquireTimeout', { engine: { acquireTimeout: '25d' } }],
    ['queues.a.timeout', { queues: { a: { concurrency: 1, timeout: '25d' } } }],
    ['retention', { retention: '4000d' }],
  ])('%s', (name, options) => {
    expect(refusal({ url, ...options })).toContain(`${name}: a length of time from`)
  })

  test('up to that they are taken', () => {
    const longest = 2_147_483_647
    const config = resolveConfig({
      url,
      grace: longest,
      retention: '3650d',
      queues: { a: { concurrency: 1, timeout: longest } },
    })
    expect(config).toMatchObject({ graceMs: longest, retentionMs: 315_360_000_000 })
  })
})

describe('URLs', () => {
  test.each([
    ['postgres://localhost/db'],
    ['postgresql://user:p%40ss@[::1]:5432/db?sslmode=require'],
    ['postgres:///db?host=/var/run/postgresql'],
    ['postgres://user:pass@/db?host=/var/run/postgresql'],
    ['postgres://user@%2Fvar%2Frun/db'],
  ])('%s is taken', (good) => {
    expect(resolveConfig({ url: good }).engine.url).toBe(good)
  })

  test.each([[undefined], ['']])('that it is not there (%j) is said', (missing) => {
    expect(refusal({ url: missing })).toMatch(
      /url: none was given \(is the environment variable set\?\); a postgres:/,
    )
  })

  test.each([
    ['localhost:5432'],
    ['postgres://'],
    ['http://localhost/db'],
    ['postgres://user:pa#ss@localhost/db'],
    ['postgres://user:pa/ss@localhost/db'],
    ['postgres://localhost:99999/db'],
    ['postgres://one:5432,other:5432/db'],
    [5432],
  ])('%s is not, and the remedy is named', (bad) => {
    expect(refusal({ url: bad })).toMatch(/url: a postgres:\/\/ URL of one host, .*percent-encoded/)
  })
})

test.each([['pg_triphase'], ['1a'], ['a-b'], ['a.b'], ['"a"'], ['a'.repeat(49)], ['ä'], ['a;b'], ['']])(
  'a schema cannot be named %s',
  (schema) => {
    expect(refusal({ url, schema })).toMatch(/schema: a lower-case letter or _/)
  },
)

describe('createEngine', () => {
  test('refuses options that do not exist, by name', () => {
    expect(() => createEngine({ url, retires: 3 } as never)).toThrow(
      /retires: there is no such option \(there are tasks, transactor, notifier, name, url, /,
    )
  })

  test.each([
    [undefined, /tasks\.1: .*undefined, as in a circle/],
    ['send', /tasks\.1: .*string/],
    [{ name: 'send' }, /tasks\.1: /],
  ])('refuses %j, which is no task', (given, message) => {
    const task = defineTask({ name: 'known', input: unchecked<null>(), run: () => {} })
    expect(() => createEngine({ url, tasks: [task, given as never] })).toThrow(message)
  })

  test('refuses two tasks of one name', () => {
    const twice = () => defineTask({ name: 'twice', input: unchecked<null>(), run: () => null })
    expect(() => createEngine({ url, tasks: [twice(), twice()] })).toThrow(/same name: twice/)
  })

  test('opens no connection', async () => {
    const engine = createEngine({ url: 'postgres://nobody@127.0.0.1:1/nothing' })
    expect(engine.connections()).toMatchObject({ engine: { open: 0 }, application: { open: 0 } })
    await engine.stop()
  })
})

test('what JavaScript forgets of a task is named, all at once', () => {
  const faults = {
    code: 'INVALID_OPTIONS',
    message: expect.stringMatching(/input: a schema.*; run: a function/),
  }
  expect(() => defineTask({ name: 'task' } as never)).toThrow(expect.objectContaining(faults))
  expect(() => defineTask({ input: unchecked<null>(), run: () => {} } as never)).toThrow(/name: 1 to 200/)
  expect(() =>
    defineStagedTask({ name: 'task', input: unchecked<null>(), call: async () => 1, abandon: 5 } as never),
  ).toThrow(/cannot work: prepare: a function; commit: a function; abandon: a function\./)
})

describe('defineTask', () => {
  function faultsOf(options: object, name = 'task'): string {
    try {
      defineTask({ name, input: unchecked<null>(), run: () => null, ...(options as TaskOptions) })
    } catch (error) {
      expect(error).toMatchObject({ code: 'INVALID_OPTIONS' })
      return (error as TriphaseError).message
    }
    throw new Error('the options were taken')
  }

  test('names every fault at once', () => {
    const message = faultsOf(
      {
        queue: 'a b',
        priority: 'top',
        maxAttempts: 0,
        maxCrashes: 1.5,
        timeout: 'long',
        backoff: { initial: 0, max: '30d', factor: 0.5, faktor: 3 },
        retries: 3,
      },
      'a name',
    )
    for (const name of [
      'name',
      'retries',
      'priority',
      'queue',
      'maxAttempts',
      'maxCrashes',
      'timeout',
      'backoff.initial',
      'backoff.max',
      'backoff.factor',
      'backoff.faktor',
    ]) {
      expect(message).toContain(`${name}: `)
    }
  })

  test.each([[Number.NaN], [Number.POSITIVE_INFINITY], [-2], ['2']])(
    'a backoff factor of %s is refused',
    (factor) => {
      expect(faultsOf({ backoff: { factor } })).toContain('backoff.factor: a number of at least 1')
    },
  )

  test('the task is frozen', () => {
    const task = defineTask({ name: 'task', input: unchecked<null>(), run: () => null, queue: 'a' })
    expect(Object.isFrozen(task)).toBe(true)
    expect(Object.isFrozen(task.options)).toBe(true)
  })
})
