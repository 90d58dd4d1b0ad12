export { type EmbeddedPostgres, startEmbeddedPostgres } from './embedded-postgres.ts'
export { EmbeddedPostgresError, type EmbeddedPostgresErrorCode } from './errors.ts'
export type { EmbeddedPostgresOptions } from './options.ts'
