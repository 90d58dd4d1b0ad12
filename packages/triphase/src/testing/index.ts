export { type TestSchema, takeSchema } from './schema-pool.ts'
