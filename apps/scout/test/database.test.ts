import { describe, expect, test } from 'vitest'
import { isAway, whileAway } from '../src/database.ts'

const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), { code: 'ECONNREFUSED' })
const never = new AbortController().signal
const revive = async () => {}

/** Fails so often, then gives `done`. */
function failing(times: number, error: unknown) {
  let calls = 0
  return () => (calls++ < times ? Promise.reject(error) : Promise.resolve('done'))
}

describe('waiting for a database', () => {
  test('says nothing of a connection that was merely cut', async () => {
    const lines: string[] = []
    const whenReachable = whileAway({
      tell: (line) => lines.push(line),
      revive,
      signal: never,
      atMostMs: 5_000,
    })
    expect(await whenReachable(failing(1, refused))).toBe('done')
    expect(lines).toEqual([])
  })

  test('tells an outage once, whoever meets it, and its end', async () => {
    const lines: string[] = []
    let away = true
    const tell = (line: string) => {
      lines.push(line)
      away = false
    }
    const whenReachable = whileAway({ tell, revive, signal: never, atMostMs: 60_000 })
    const work = () => (away ? Promise.reject(refused) : Promise.resolve('done'))
    expect(await Promise.all([1, 2, 3].map(() => whenReachable(work)))).toEqual(['done', 'done', 'done'])
    expect(lines).toEqual([
      'The database does not answer (connect ECONNREFUSED 127.0.0.1:5432). Waiting for it for up to 60 s.',
      'The database answers again.',
    ])
  })

  test('ends with its time, with the signal, and with any other error', async () => {
    const tell = () => {}
    await expect(whileAway({ tell, revive, signal: never, atMostMs: 0 })(failing(9, refused))).rejects.toBe(
      refused,
    )
    const fault = new Error('syntax error')
    await expect(
      whileAway({ tell, revive, signal: never, atMostMs: 60_000 })(failing(1, fault)),
    ).rejects.toBe(fault)
    const controller = new AbortController()
    const waiting = whileAway({ tell, revive, signal: controller.signal, atMostMs: 60_000 })(
      () => new Promise(() => {}),
    )
    controller.abort(fault)
    await expect(waiting).rejects.toBe(fault)
  })
})

test.each([
  [{ message: '', code: 'ECONNREFUSED' }, true],
  [{ message: 'terminating connection due to administrator command', code: '57P01' }, true],
  [{ message: 'sorry, too many clients already', code: '53300' }, true],
  [{ message: 'Connection terminated unexpectedly' }, true],
  [{ message: 'Query read timeout' }, true],
  [{ message: 'permission denied', code: '42501' }, false],
  [{ message: 'disk full', code: '53100' }, false],
  [{ message: 'EACCES', code: 'EACCES' }, false],
])('%j means that it is away: %s', (error, away) => {
  expect(isAway(Object.assign(new Error(error.message), error))).toBe(away)
  expect(isAway(error)).toBe(away)
})
