import { describe, expect, it } from 'vitest'
import { eventually } from './processes.ts'
import { proxiedDatabase } from './proxied-database.ts'

const db = proxiedDatabase()
const insert = /^insert into/i

describe('which statements a fault is for', () => {
  it('skips, then applies a number of times', async () => {
    const client = await db.client()
    const failing = db.proxy.onStatement(insert, 'error', { skip: 1, times: 2 })
    const inserts = ['a', 'b', 'c', 'd'].map((row) => () => db.insert(client, row))
    const outcomes: string[] = []
    for (const next of inserts) {
      await next().then(
        () => outcomes.push('ran'),
        () => outcomes.push('failed'),
      )
    }
    expect(outcomes).toEqual(['ran', 'failed', 'failed', 'ran'])
    expect(failing.hits).toBe(2)
    expect(await db.rows()).toEqual(['a', 'd'])
  })

  it('matches a pattern with the g flag anew each time', async () => {
    const client = await db.client()
    const failing = db.proxy.onStatement(/select/gi, 'error', { times: 3 })
    for (const attempt of [1, 2, 3]) await expect(client.query(`SELECT ${attempt}`)).rejects.toThrow()
    expect(failing.hits).toBe(3)
  })

  it('tells the clients apart by application name', async () => {
    const [engine, app] = await Promise.all(
      ['x-engine', 'x'].map((application_name) => db.client({ application_name })),
    )
    db.proxy.onStatement((sql, name) => /^insert/i.test(sql) && name.startsWith('x-engine'), 'cut-before')
    await db.insert(app!, 'app')
    await expect(db.insert(engine!, 'engine')).rejects.toThrow()
    expect(await db.rows()).toEqual(['app'])
  })

  it('applies the fault that was registered first, then the next', async () => {
    const client = await db.client()
    const first = db.proxy.onStatement(insert, 'error')
    const second = db.proxy.onStatement(/into/i, 'error')
    await expect(db.insert(client, 'a')).rejects.toThrow()
    expect([first.hits, second.hits]).toEqual([1, 0])
    await expect(db.insert(client, 'a')).rejects.toThrow()
    expect([first.hits, second.hits]).toEqual([1, 1])
  })

  it('is over when it is removed', async () => {
    const client = await db.client()
    const held = db.proxy.onStatement(insert, 'hold-before', { times: 5 })
    const first = db.insert(client, 'a')
    await held.hit
    held.remove()
    held.release()
    await first
    await db.insert(client, 'b')
    expect(held.hits).toBe(1)
  })

  it('holds later matches anew after a release', async () => {
    const held = db.proxy.onStatement(insert, 'hold-before', { times: 2 })
    const [one, two] = await Promise.all([db.client(), db.client()])
    const first = db.insert(one, 'a')
    await held.hit
    held.release()
    await first
    const second = db.insert(two, 'b')
    await eventually(() => expect(held.hits).toBe(2))
    expect(await db.rows()).toEqual(['a'])
    held.release()
    await second
  })

  it('knows the SQL of a statement that was prepared earlier', async () => {
    const client = await db.client()
    const prepared = { name: 'plus-one', text: 'SELECT $1::int + 1 AS sum' }
    const failing = db.proxy.onStatement(/\+ 1 AS sum/, 'error', { skip: 1 })
    expect((await client.query({ ...prepared, values: [1] })).rows).toEqual([{ sum: 2 }])
    await expect(client.query({ ...prepared, values: [2] })).rejects.toThrow('fault injected')
    expect((await client.query({ ...prepared, values: [3] })).rows).toEqual([{ sum: 4 }])
    expect(failing.hits).toBe(1)
  })

  it('logs every statement with its client and time', async () => {
    const before = Date.now()
    const client = await db.client({ application_name: 'logged' })
    await client.query('BEGIN')
    await client.query('SELECT $1::int', [1])
    await client.query('COMMIT')
    expect(db.proxy.statements.map(({ sql }) => sql)).toEqual(['BEGIN', 'SELECT $1::int', 'COMMIT'])
    for (const { applicationName, time } of db.proxy.statements) {
      expect(applicationName).toMatch(/^logged via /)
      expect(time).toBeGreaterThanOrEqual(before)
      expect(time).toBeLessThanOrEqual(Date.now())
    }
  })
})
