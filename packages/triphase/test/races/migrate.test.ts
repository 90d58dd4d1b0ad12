import { randomBytes } from 'node:crypto'
import { afterEach, expect, test } from 'vitest'
import { SCHEMA_VERSION } from '../../src/index.ts'
import { Database } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { useEngines } from '../support/engines.ts'
import { eventually } from '../support/processes.ts'
import { useSessions } from '../support/sessions.ts'

const bench = useEngines()
const sessions = useSessions(bench)
const schema = `triphase_race_${randomBytes(4).toString('hex')}`
const open: Database[] = []

afterEach(async () => {
  await Promise.all(open.splice(0).map((database) => database.end()))
  await bench.schema.database.query(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)
})

function newProcess(): Database {
  const database = new Database(schema, {
    url: bench.schema.url,
    size: 1,
    applicationName: `migrates ${schema}`,
    acquireTimeoutMs: 10_000,
    statementTimeoutMs: 30_000,
  })
  open.push(database)
  return database
}

const ALL = Array.from({ length: SCHEMA_VERSION }, (_, index) => index + 1)

test('of several processes that start on an empty database each migration is applied by one', async () => {
  const applied = await Promise.all([1, 2, 3, 4].map(() => migrate(newProcess())))
  expect(applied.flat().toSorted()).toEqual(ALL)
  expect(await migrate(newProcess())).toEqual([])
})

test('while one migrates the others try again, and no statement of theirs waits', async () => {
  const holder = await sessions.open()
  await holder.begin()
  const lock = 'SELECT pg_advisory_xact_lock(hashtext($1), hashtext($2))'
  await holder.database.query(lock, ['triphase migration', schema])
  const database = newProcess()
  const migrated = migrate(database)
  const { database: observer } = bench.schema
  const tried = `SELECT FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle' AND query = 'COMMIT'`
  await eventually(async () => (await observer.query(tried, [`migrates ${schema}`])).length === 1)
  expect(await observer.query('SELECT FROM pg_namespace WHERE nspname = $1', [schema])).toEqual([])
  const waiting = `SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event_type = 'Lock'`
  expect(await observer.query(waiting, [`migrates ${schema}`])).toEqual([])
  await holder.commit()
  expect(await migrated).toEqual(ALL)
})
