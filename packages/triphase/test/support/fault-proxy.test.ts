import { describe, expect, it } from 'vitest'
import { eventually } from './processes.ts'
import { expectStatus, proxiedDatabase } from './proxied-database.ts'

const db = proxiedDatabase()
const insert = /^insert into/i
const lost = /terminated unexpectedly/

/** Follows a promise without waiting for it. */
function watch(promise: Promise<unknown>): { readonly state: 'pending' | 'resolved' | 'rejected' } {
  const watched = { state: 'pending' as 'pending' | 'resolved' | 'rejected' }
  promise.then(
    () => {
      watched.state = 'resolved'
    },
    () => {
      watched.state = 'rejected'
    },
  )
  return watched
}

describe('cut-before', () => {
  it('loses the connection and the transaction at COMMIT', async () => {
    const client = await db.inTransaction('a')
    const cut = db.proxy.onStatement(/^commit$/i, 'cut-before')
    await expect(client.query('COMMIT')).rejects.toThrow(lost)
    await cut.hit
    expect(cut.hits).toBe(1)
    expect(db.proxy.connections).toBe(0)
    expect(await db.rowsAfterSessions()).toEqual([])
  })

  it('keeps a parameterised statement from the server', async () => {
    const client = await db.client()
    db.proxy.onStatement(insert, 'cut-before')
    await expect(db.insert(client, 'a')).rejects.toThrow(lost)
    expect(await db.rowsAfterSessions()).toEqual([])
  })

  it('resets the connection if asked', async () => {
    const client = await db.inTransaction('a')
    db.proxy.onStatement(/^commit$/i, 'cut-before', { reset: true })
    await expect(client.query('COMMIT')).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(await db.rowsAfterSessions()).toEqual([])
  })
})

describe('cut-after', () => {
  it('commits, and loses the reply', async () => {
    const client = await db.inTransaction('a')
    const cut = db.proxy.onStatement(/^commit$/i, 'cut-after')
    await expect(client.query('COMMIT')).rejects.toThrow(lost)
    await cut.hit
    expect(cut.hits).toBe(1)
    expect(await db.rows()).toEqual(['a'])
    expect(await db.rowsAfterSessions()).toEqual(['a'])
  })

  it('runs a parameterised statement, and loses its rows', async () => {
    const client = await db.client()
    db.proxy.onStatement(insert, 'cut-after', { reset: true })
    await expect(db.insert(client, 'a')).rejects.toMatchObject({ code: 'ECONNRESET' })
    expect(await db.rows()).toEqual(['a'])
  })

  it('runs nothing that was pipelined behind the statement', async () => {
    const client = await db.client({ pipeline: true })
    db.proxy.onStatement(insert, 'cut-after', { skip: 1 })
    const inserts = ['a', 'b', 'c'].map((row) => db.insert(client, row))
    const outcomes = await Promise.allSettled(inserts)
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'rejected'])
    expect(await db.rowsAfterSessions()).toEqual(['a', 'b'])
  })
})

describe('hold-before', () => {
  it('keeps COMMIT from the server until it is released', async () => {
    const client = await db.inTransaction('a', { application_name: 'holder' })
    const held = db.proxy.onStatement(/^commit$/i, 'hold-before')
    const commit = client.query('COMMIT')
    const watched = watch(commit)
    await held.hit
    const { rows } = await db.direct.query<{ state: string; query: string }>(
      `SELECT state, query FROM pg_stat_activity WHERE application_name LIKE 'holder via %'`,
    )
    expect(rows).toMatchObject([{ state: 'idle in transaction', query: expect.stringMatching(insert) }])
    expect(await db.rows()).toEqual([])
    expect(watched.state).toBe('pending')
    held.release()
    await commit
    expect(await db.rows()).toEqual(['a'])
  })

  it('delivers the statement of a client that has died', async () => {
    const client = await db.client()
    const held = db.proxy.onStatement(insert, 'hold-before')
    const inserted = db.insert(client, 'late')
    const watched = watch(inserted)
    await held.hit
    await client.end()
    await expect(inserted).rejects.toThrow()
    expect(watched.state).toBe('rejected')
    expect(await db.rows()).toEqual([])
    expect(db.proxy.connections).toBe(1)
    held.release()
    expect(await db.rowsAfterSessions()).toEqual(['late'])
    await eventually(() => expect(db.proxy.connections).toBe(0))
  })

  it('holds what was pipelined behind the statement, and not what was before', async () => {
    const client = await db.client({ pipeline: true })
    const held = db.proxy.onStatement(insert, 'hold-before', { skip: 1 })
    const [first, ...others] = ['a', 'b', 'c'].map((row) => db.insert(client, row))
    await first
    await held.hit
    expect(await db.rows()).toEqual(['a'])
    held.release()
    await Promise.all(others)
    expect(await db.rows()).toEqual(['a', 'b', 'c'])
  })
})

describe('hold-reply', () => {
  it('has committed, and does not say so until it is released', async () => {
    const client = await db.inTransaction('a')
    const held = db.proxy.onStatement(/^commit$/i, 'hold-reply')
    const commit = client.query('COMMIT')
    const watched = watch(commit)
    await held.hit
    expect(await db.rows()).toEqual(['a'])
    expect(watched.state).toBe('pending')
    held.release()
    await commit
    expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
  })

  it('holds the replies behind it, and the statements run', async () => {
    const client = await db.client({ pipeline: true })
    const first = db.proxy.onStatement(insert, 'hold-reply')
    const third = db.proxy.onStatement(insert, 'hold-reply', { skip: 1 })
    const inserts = ['a', 'b', 'c'].map((row) => db.insert(client, row))
    const watched = inserts.map(watch)
    await Promise.all([first.hit, third.hit])
    expect(await db.rows()).toEqual(['a', 'b', 'c'])
    expect(watched.map(({ state }) => state)).toEqual(['pending', 'pending', 'pending'])
    first.release()
    await Promise.all(inserts.slice(0, 2))
    expect(watched[2]?.state).toBe('pending')
    third.release()
    await inserts[2]
  })

  it('does not wait for a client that has died', async () => {
    const client = await db.client()
    const held = db.proxy.onStatement(insert, 'hold-reply')
    const inserted = db.insert(client, 'a')
    const watched = watch(inserted)
    await held.hit
    await client.end()
    await eventually(() => expect(watched.state).toBe('rejected'))
    expect(await db.rowsAfterSessions()).toEqual(['a'])
    await eventually(() => expect(db.proxy.connections).toBe(0))
  })
})

describe('error', () => {
  const options = { sqlstate: '40001', message: 'could not serialize' }
  const failure = { code: '40001', message: 'could not serialize', severity: 'ERROR' }

  it('fails a statement, and the session goes on', async () => {
    const client = await db.client()
    const failed = db.proxy.onStatement(insert, 'error', options)
    await expect(db.insert(client, 'a')).rejects.toMatchObject(failure)
    await failed.hit
    await expectStatus(client, 'I')
    await db.insert(client, 'b')
    expect(await db.rows()).toEqual(['b'])
  })

  it('aborts the transaction that the statement was in', async () => {
    const client = await db.inTransaction('a')
    db.proxy.onStatement(insert, 'error', options)
    await expect(db.insert(client, 'b')).rejects.toMatchObject(failure)
    await expectStatus(client, 'E')
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' })
    await client.query('COMMIT')
    await expectStatus(client, 'I')
    expect(await db.rows()).toEqual([])
  })

  it('rolls back when COMMIT fails', async () => {
    const client = await db.inTransaction('a')
    db.proxy.onStatement(/^commit$/i, 'error', options)
    await expect(client.query('COMMIT')).rejects.toMatchObject(failure)
    await expectStatus(client, 'I')
    await db.insert(client, 'b')
    expect(await db.rows()).toEqual(['b'])
  })

  it('starts no transaction when BEGIN fails', async () => {
    const client = await db.client()
    db.proxy.onStatement(/^begin/i, 'error')
    await expect(client.query('BEGIN')).rejects.toMatchObject({ code: 'XX000', message: 'fault injected' })
    await expectStatus(client, 'I')
  })

  it('takes its place among pipelined replies', async () => {
    const client = await db.client({ pipeline: true })
    db.proxy.onStatement(insert, 'error', { skip: 1 })
    const inserts = ['a', 'b', 'c'].map((row) => db.insert(client, row))
    const outcomes = await Promise.allSettled(inserts)
    expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    expect(await db.rows()).toEqual(['a', 'c'])
  })
})
