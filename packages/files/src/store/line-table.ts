import pg from 'pg'

/** A table's name as SQL has it: each part quoted. */
export function tableName(schema: string | null, table: string): string {
  const name = pg.escapeIdentifier(table)
  return schema === null ? name : `${pg.escapeIdentifier(schema)}.${name}`
}

/** Of one file at a time: whoever holds it until the end of his transaction loads. `$1` the table's name. */
export const TRY_LOCK: string = `
SELECT pg_try_advisory_xact_lock(hashtextextended('triphase-files ' || $1, 0)) AS locked`

/** A copy takes as long as it takes; the exchange of two tables waits for nobody for long. */
export const SET_LIMITS: string = `SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'`

/** What there is under a name, and what was said about it. `$1` the name, quoted. By pg_class. */
export const FIND_TABLE: string = `
SELECT c.relkind::text AS kind, obj_description(c.oid, 'pg_class') AS comment FROM pg_class c WHERE c.oid = to_regclass($1)`

/** Reads the whole table. */
export function countLines(table: string): string {
  return `SELECT status, count(*)::text AS count FROM ${table} GROUP BY status`
}

/**
 * The number of the load is a part of the key, so that nothing that was begun for another file finds a line of this one.
 * json keeps what jsonb would refuse (\u0000) or change (long numbers, the order of names).
 */
export function createTable(table: string, load: number): string {
  return `
CREATE TABLE ${table} (
  load integer NOT NULL DEFAULT ${Math.trunc(load)},
  line bigint NOT NULL,
  record json NOT NULL,
  status text NOT NULL DEFAULT 'pending',
  result json,
  error text
)`
}

/** In text format: a row is `LINE \t JSON`, with the backslashes of COPY. */
export function copyLines(table: string): string {
  return `COPY ${table} (line, record) FROM STDIN`
}

/** What a sweep needs, built at once over all rows; the server names the indexes. */
export function indexTable(table: string): string {
  return `
ALTER TABLE ${table} ADD PRIMARY KEY (load, line);
CREATE INDEX ON ${table} (status, load, line);
CREATE INDEX ON ${table} (load, line) WHERE status = 'pending';
ANALYZE ${table}`
}

export function commentOn(table: string, comment: string): string {
  return `COMMENT ON TABLE ${table} IS ${pg.escapeLiteral(comment)}`
}

/** From here on nobody reads a line of the table, nor begins to. */
export function lockTable(table: string): string {
  return `LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`
}

export function dropTable(table: string): string {
  return `DROP TABLE ${table}`
}

export function renameTable(table: string, name: string): string {
  return `ALTER TABLE ${table} RENAME TO ${pg.escapeIdentifier(name)}`
}

/** Keeps the table from being replaced until the end of the transaction. */
export function holdTable(table: string): string {
  return `LOCK TABLE ${table} IN ACCESS SHARE MODE`
}

/** All lines in their order, as of one moment; by the primary key. */
export function exportLines(table: string): string {
  return `
COPY (SELECT line, record, status, result, error FROM ${table} ORDER BY load, line) TO STDOUT (FORMAT csv)`
}
