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

test('a role whose sessions write times in another style than ISO is refused, with the remedy', async () => {
  const { url, schema } = bench.schema
  const role = `styled_${randomBytes(4).toString('hex')}`
  const admin = new pg.Client(testDatabaseUrl())
  await admin.connect()
  await admin.query(`CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD 'styled'`)
  await admin.query(`ALTER ROLE ${role} SET DateStyle = 'German'`)
  const styled = Object.assign(new URL(url), { username: role, password: 'styled' })
  const engine = createEngine({ url: styled.href, schema })
  const error = { code: 'INVALID_CONFIG', message: expect.stringMatching(/German, .*SET DateStyle = 'ISO'/) }
  try {
    await expect(engine.migrate()).rejects.toMatchObject(error)
    await expect(engine.start()).rejects.toMatchObject(error)
  } finally {
    await engine.stop()
    await admin.query(`DROP ROLE ${role}`)
    await admin.end()
  }
})
