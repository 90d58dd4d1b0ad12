import type pg from 'pg'
import { afterAll, afterEach, beforeAll } from 'vitest'
import { type CreateEngineOptions, createEngine, type Engine } from '../../src/index.ts'
import { type TestSchema, takeSchema } from '../../src/testing/index.ts'
import { testDatabaseUrl, testUrl } from './database-url.ts'

/** A schema whose statements go where those of the engines under test go. */
export function takeTestSchema(pool?: string): Promise<TestSchema> {
  return takeSchema(testUrl(), pool, testDatabaseUrl())
}

export interface Bench {
  readonly schema: TestSchema
  /** An engine on the file's schema, stopped (without grace) and cleaned up after the test. */
  engine(options?: Partial<CreateEngineOptions<pg.PoolClient>>): Engine<pg.PoolClient>
}

/** Gives a test file a schema of its own and engines on it. */
export function useEngines(): Bench {
  let schema: TestSchema | undefined
  const engines: Engine<pg.PoolClient>[] = []
  beforeAll(async () => {
    schema = await takeTestSchema()
  })
  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.stop({ graceMs: 0 })))
    await schema?.clean()
  })
  afterAll(() => schema?.release())
  return {
    get schema() {
      if (!schema) throw new Error('the schema is taken in beforeAll')
      return schema
    },
    engine(options = {}) {
      const engine = createEngine({
        url: this.schema.url,
        ...(options.url ? {} : { directUrl: testDatabaseUrl() }),
        schema: this.schema.schema,
        engine: { size: 3 },
        application: { size: 3 },
        abortGrace: '500ms',
        ...options,
      })
      engines.push(engine)
      return engine
    },
  }
}
