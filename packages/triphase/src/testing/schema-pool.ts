import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { Database } from '../store/database.ts'
import { migrate } from '../store/migrate.ts'
import { deleteEverything, holdSchema } from '../store/test-schema.ts'

/** A migrated, empty schema that nobody else uses until it is released. */
export interface TestSchema {
  url: string
  schema: string
  /** The engine's statements on this schema, for looking into it. */
  database: Database
  /** Deletes what the test has written. */
  clean(): Promise<void>
  /** Closes the connections and lets others have the schema. */
  release(): Promise<void>
}

const MOST_SCHEMAS = 200

/**
 * Takes a schema from a pool of migrated ones: the first that no other test process holds, made when all are taken.
 * A schema is held by an advisory lock on a connection of its own, so a test that is killed gives it back.
 *
 * @param prefix what the schemas are called, before their numbers. Default `'triphase_test'`.
 * @param directUrl a URL for that connection, where those of `url` are pooled per transaction. Default: `url`.
 * @example
 * const { url, schema, clean, release } = await takeSchema('postgres://localhost/test')
 * const engine = createEngine({ url, schema, tasks, queues: { default: 2 } })
 * afterEach(clean)
 * afterAll(() => engine.stop().then(release))
 */
export async function takeSchema(
  url: string,
  prefix = 'triphase_test',
  directUrl: string = url,
): Promise<TestSchema> {
  const holder = new pg.Client({
    connectionString: directUrl,
    application_name: `schema-${randomUUID().slice(0, 8)}`,
  })
  holder.on('error', () => {})
  await holder.connect()
  const schema = await firstFree(holder, prefix)
  const database = new Database(schema, {
    url,
    size: 2,
    applicationName: 'test',
    acquireTimeoutMs: 30_000,
    statementTimeoutMs: 60_000,
  })
  await migrate(database)
  await deleteEverything(database)
  return {
    url,
    schema,
    database,
    clean: () => deleteEverything(database),
    async release() {
      await database.end()
      await holder.end()
    },
  }
}

async function firstFree(holder: pg.Client, prefix: string): Promise<string> {
  for (let number = 1; number <= MOST_SCHEMAS; number++) {
    const schema = `${prefix}_${number}`
    if (await holdSchema(holder, schema)) return schema
  }
  throw new Error(`all ${MOST_SCHEMAS} test schemas are taken`)
}
