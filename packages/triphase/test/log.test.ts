import { Writable } from 'node:stream'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createLog, type LogOptions, logTelemetry } from '../src/log.ts'
import { Telemetry, type TelemetryEvents } from '../src/telemetry.ts'

const JOB = { jobId: '7', task: 'describe', queue: 'slow', attempt: 2, claimNo: 3 }
const ERROR = { name: 'Error', message: 'the model is busy', stack: 'Error: at secret-path.ts' }

/** One of each event; what must never be written is marked. */
const EVENTS: { [Name in keyof TelemetryEvents]: TelemetryEvents[Name] } = {
  'job:enqueued': { jobIds: ['7'], task: 'describe', queue: 'slow' },
  'job:started': { ...JOB, queuedMs: 12 },
  'job:phase': { ...JOB, phase: 'call' },
  'job:answer-stored': { ...JOB, step: 'call', bytes: 7, first: true },
  'job:completed': {
    ...JOB,
    durationMs: 1_234.5,
    ledger: { checkouts: 2, waitMs: 1, holdMs: 2, longestHoldMs: 1, phases: {} },
    result: { text: 'NEVER LOGGED' },
  },
  'job:retried': { ...JOB, delayMs: 999.6, countsAsAttempt: true, error: ERROR },
  'job:snoozed': { ...JOB, delayMs: 5 },
  'job:handed-back': JOB,
  'job:cancelled': { ...JOB, reason: 'not wanted' },
  'job:discarded': { ...JOB, error: ERROR },
  'job:lost': JOB,
  'job:leaked': { ...JOB, reason: 'took too long' },
  'queue:claimed': { queue: 'slow', count: 3, durationMs: 1 },
  'queue:changed': { queue: 'slow', paused: true, concurrency: 3 },
  'jobs:staged': { count: 3 },
  'jobs:rescued': { processId: '4', again: ['1', '2'], discarded: ['3'] },
  'jobs:strays-returned': { jobIds: ['1'] },
  'server:found': { version: '18.4', pooler: 'transaction' },
  'process:started': { processId: '4', name: 'app' },
  'process:stopping': { processId: '4', running: 2, graceMs: 25_000 },
  'process:stopped': { processId: '4', handedBack: 1 },
  'process:lost': { processId: '4', aborted: 2 },
  'process:leading': { processId: '4', leading: true },
  'heartbeat:failed': { error: ERROR, failures: 3 },
  'statement:failed': { statement: 'claim', error: ERROR, retryInMs: 250.4 },
  'notifier:changed': { notifier: 'postgres', connected: false, error: ERROR },
  'history:pruned': { partitionsMade: 1, partitionsDropped: 2, postponed: 0, orphans: 0 },
  'pool:error': { pool: 'engine', error: ERROR },
  'pool:held': { pool: 'application', waitMs: 1, holdMs: 2, jobId: '7' },
  'guard:offence': {
    kind: 'call',
    what: 'GET api.example.com',
    opened: 'at src/orders.ts:7:3',
    message: 'GET api.example.com was called inside a transaction',
    refused: false,
    jobId: null,
  },
  'config:warning': { message: 'both pools share a pooler' },
}

function linesOf(options: LogOptions, emit: (telemetry: Telemetry) => void): string[] {
  let written = ''
  const destination = new Writable({
    write(chunk, _encoding, done) {
      written += chunk
      done()
    },
  })
  const telemetry = new Telemetry()
  const end = logTelemetry(telemetry, createLog({ ...options, destination }))
  emit(telemetry)
  end()
  telemetry.emit('config:warning', { message: 'after the end' })
  return written.split('\n').filter((line) => line !== '')
}

function emitAll(telemetry: Telemetry): void {
  for (const [name, event] of Object.entries(EVENTS)) telemetry.emit(name as never, event as never)
}

test('one statement that fails for one reason is a line every 10 s, with how often', () => {
  vi.useFakeTimers({ toFake: ['performance'] })
  onTestFinished(() => void vi.useRealTimers())
  const lines = linesOf({ format: 'json' }, (telemetry) => {
    const fail = (statement: string, message: string, retryInMs: number | null) =>
      telemetry.emit('statement:failed', { statement, error: { name: 'Error', message }, retryInMs })
    fail('ack', 'away', 100)
    for (let retryInMs = 1; retryInMs < 200; retryInMs++) fail('ack', 'away', retryInMs)
    fail('ack', 'refused', 100)
    fail('claim', 'away', 100)
    fail('ack', 'away', null)
    vi.advanceTimersByTime(10_000)
    fail('ack', 'away', 3_000)
    fail('claim', 'away', 3_000)
  })
  expect(lines.map((line) => JSON.parse(line).msg)).toEqual([
    'ack failed, again in 100 ms: away',
    'ack failed, again in 100 ms: refused',
    'claim failed, again in 100 ms: away',
    'ack failed: away',
    'ack failed, again in 3000 ms: away (200 times since it was last said)',
    'claim failed, again in 3000 ms: away',
  ])
})

test('a hint that was not sent is a warning: the others ask', () => {
  const lines = linesOf({ format: 'json' }, (telemetry) => {
    for (const statement of ['notify', 'prune'])
      telemetry.emit('statement:failed', {
        statement,
        error: { name: 'Error', message: 'no' },
        retryInMs: null,
      })
  })
  expect(lines.map((line) => JSON.parse(line).level)).toEqual([40, 50])
})

describe('JSON', () => {
  test('is a line each, with level, event, identifiers and a message', () => {
    const lines = linesOf({ format: 'json' }, (telemetry) =>
      telemetry.emit('job:retried', EVENTS['job:retried']),
    )
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      {
        level: 40,
        time: expect.any(Number),
        event: 'job:retried',
        jobId: '7',
        task: 'describe',
        queue: 'slow',
        attempt: 2,
        claimNo: 3,
        msg: 'describe 7 failed and runs again in 1000 ms: the model is busy',
      },
    ])
  })

  test('is the default where nobody looks', () => {
    const [line] = linesOf({}, (telemetry) => telemetry.emit('config:warning', EVENTS['config:warning']))
    expect(JSON.parse(line!)).toMatchObject({ msg: 'both pools share a pooler', event: 'config:warning' })
  })
})

test('for people: a time, a level and the same message', () => {
  const lines = linesOf({ format: 'human' }, (telemetry) => {
    telemetry.emit('jobs:rescued', EVENTS['jobs:rescued'])
  })
  expect(lines[0]).toMatch(
    /^\[\d\d:\d\d:\d\d\.\d{3}\] WARN: process 4 is dead: 2 jobs run again, 1 discarded/,
  )
})

describe.each(['human', 'json'] as const)('%s', (format) => {
  test('never has inputs, answers, results or stacks in it', () => {
    const written = linesOf({ format, level: 'debug' }, emitAll).join('\n')
    expect(written).toContain('describe 7 completed in 1235 ms')
    expect(written).not.toMatch(/NEVER LOGGED|secret-path/)
  })

  test.each([
    ['error', 3],
    ['warn', 13],
    ['silent', 0],
  ] as const)('at level %s only what is as bad is written', (level, count) => {
    const written = linesOf({ format, level }, emitAll).join('\n')
    expect(written.match(/\] (WARN|ERROR): |"level":[45]0/g) ?? []).toHaveLength(count)
    expect(written).not.toMatch(/INFO|"level":30|DEBUG|"level":20/)
  })

  test('nothing is written after the end', () => {
    expect(linesOf({ format }, () => {})).toEqual([])
  })
})

test('lines that say different things of one event', () => {
  const messages = linesOf({ format: 'json', level: 'debug' }, (telemetry) => {
    telemetry.emit('queue:changed', { queue: 'slow', paused: false, concurrency: 3 })
    telemetry.emit('queue:changed', { queue: 'slow', paused: true, concurrency: 3 })
    telemetry.emit('statement:failed', { statement: 'ack', error: ERROR, retryInMs: 5 })
    telemetry.emit('statement:failed', { statement: 'ack', error: ERROR, retryInMs: null })
    telemetry.emit('notifier:changed', { notifier: 'postgres', connected: true, error: null })
    telemetry.emit('notifier:changed', { notifier: 'postgres', connected: false, error: null })
  }).map((line) => [JSON.parse(line).level, JSON.parse(line).msg])
  expect(messages).toEqual([
    [30, 'queue slow runs 3 at a time'],
    [30, 'queue slow is paused'],
    [40, 'ack failed, again in 5 ms: the model is busy'],
    [50, 'ack failed: the model is busy'],
    [30, 'notifications arrive (postgres)'],
    [40, 'no notifications (postgres), polling meanwhile: not connected'],
  ])
})
