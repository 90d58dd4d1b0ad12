import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, test } from 'vitest'
import { createEngine } from '../../src/index.ts'
import { testDatabaseUrl } from '../support/database-url.ts'
import { useEngines } from '../support/engines.ts'

const bench = useEngines()

test('a server that is too old is named, with the remedy, before anything is written', async () => {
  // A function that is found before the server's own says that it is PostgreSQL 13.
  const past = `past_${randomBytes(4).toString('hex')}`
  const { database, schema } = bench.schema
  await database.query(`CREATE SCHEMA ${past}`)
  await database.query(`CREATE FUNCTION ${past}.current_setting(name text) RETURNS text LANGUAGE sql
    AS $$ SELECT CASE name WHEN 'server_version_num' THEN '130022' ELSE '13.22 (Debian)' END $$`)
  const url = new URL(testDatabaseUrl())
  url.searchParams.set('options', `-c search_path=${past},pg_catalog`)
  const engine = createEngine({ url: url.href, schema })
  const error = {
    code: 'SERVER_TOO_OLD',
    message: expect.stringMatching(/PostgreSQL 13\.22, and .* needs 14/),
  }
  try {
    await expect(engine.migrate()).rejects.toMatchObject(error)
    await expect(engine.start()).rejects.toMatchObject(error)
  } finally {
    await engine.stop()
    await database.query(`DROP SCHEMA ${past} CASCADE`)
  }
})

test.each([
  ['DateStyle', 'German', /German, .*SET DateStyle = 'ISO'/],
  ['default_transaction_isolation', 'serializable', /are serializable: .*'read committed'/],
  ['default_transaction_isolation', 'repeatable read', /are repeatable read: .*'read committed'/],
  ['default_transaction_read_only', 'on', /take no writes.*default_transaction_read_only = off/],
])('a role with %s %s is refused, with the remedy', async (setting, value, message) => {
  const { url, schema } = bench.schema
  const role = `set_${randomBytes(4).toString('hex')}`
  const admin = new pg.Client(testDatabaseUrl())
  await admin.connect()
  await admin.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'set'`)
  await admin.query(`ALTER ROLE ${role} SET ${setting} = '${value}'`)
  const engine = createEngine({
    url: Object.assign(new URL(url), { username: role, password: 'set' }).href,
    schema,
  })
  const error = { code: 'INVALID_CONFIG', message: expect.stringMatching(message) }
  try {
    await expect(engine.migrate()).rejects.toMatchObject(error)
    await expect(engine.start()).rejects.toMatchObject(error)
  } finally {
    await engine.stop()
    await admin.query(`DROP ROLE ${role}`)
    await admin.end()
  }
})
