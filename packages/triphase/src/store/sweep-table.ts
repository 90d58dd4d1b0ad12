interface ColumnShape {
  name: string
  type: string
}

/** What the database says of a sweep's table, beyond its definition. */
export interface TableShape {
  /** The key's columns with their types, in order, as SQL writes them. */
  key: readonly ColumnShape[]
  /** Columns that are ordered by before the key's. */
  order: readonly ColumnShape[]
  statusType: string
  resultType: string
  /** With its length: a reason that is longer is cut, not refused. */
  errorType: string
  /** Its rows are in several tables, so that a place (ctid) is not one row's alone. */
  partitioned: boolean
}

/** A sweep's table as its author named it. */
export interface TableNames {
  schema: string | undefined
  table: string
  key: readonly string[]
  status: string
  result: string
  error: string
  /** A condition in SQL, written by the sweep's author. */
  where: string | undefined
  /** Columns that records are taken in the order of, before the key's. */
  order: readonly string[]
  descending: boolean
}

/** The columns that tell where a record stands: of the order, then of the key. */
export function placeColumns({ order, key }: Pick<TableNames, 'order' | 'key'>): string[] {
  return [...new Set([...order, ...key])]
}

/**
 * The statements of one sweep on its table, each whole: made once from names and types, quoted, and from the author's
 * own `where`. They run on the application's connection.
 *
 * A record's key travels as text: `recordkey` is a JSON array of its columns, read and written by the database, which
 * alone compares keys. So a page ends where the column's own collation says. So does its place, which is its key with the
 * columns of the order before it; without an order both are the same.
 */
export interface TableStatements {
  /** Places at which pages end, after a cursor: `$1` cursor or null, `$2` rows to look at, `$3` rows a page. */
  readonly boundaries: string
  /** Pending records of a page, as they are: `$1` after this place or null, `$2` up to this place or null, `$3` at most. */
  readonly pending: string
  /** The record of the key `$1`, while it is pending. */
  readonly pendingRecord: string
  /**
   * Marks records: `$1` the page that counts them, or null; arrays of `$2` results, `$3` errors (null: done), `$4`… the
   * columns of keys. Its one row says which of them were marked, by number from 1; null: all.
   */
  readonly mark: string
  /** The same, but a row that somebody else has locked is an error (55P03). */
  readonly markNow: string
  /** Of the records in `$1` (JSON rows of k1…), those that exist, and whether they are still pending. */
  readonly look: string
  readonly counts: string
  readonly pendingCount: string
  /** `$1` how many groups. */
  readonly errorGroups: string
  /** Errors after a key: `$1` group or null, `$2` key or null, `$3` at most. */
  readonly errors: string
  /** Makes errors pending again: `$1` group or null, `$2` after this key or null, `$3` rows to look at. */
  readonly retryErrors: string
  /** Makes the errors among `$1` (JSON rows of k1…) pending again. */
  readonly retryKeys: string
  /** Its plan says how many rows are pending, roughly and at once. */
  readonly estimate: string
}

/** An identifier of SQL, whatever characters it has. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export function tableName({ schema, table }: Pick<TableNames, 'schema' | 'table'>): string {
  return schema === undefined ? quoted(table) : `${quoted(schema)}.${quoted(table)}`
}

/** The text of an error without what differs from record to record: what groups them. */
function pattern(error: string): string {
  const uuid = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
  const withoutUuid = `regexp_replace(left(${error}, 2000), '${uuid}', '<id>', 'gi')`
  const withoutHex = `regexp_replace(${withoutUuid}, '\\m(?=[a-f]*[0-9])[0-9a-f]{8,}\\M', '<id>', 'gi')`
  return `left(regexp_replace(${withoutHex}, '[0-9]+([.][0-9]+)*', '<n>', 'g'), 300)`
}

function group(error: string): string {
  return `left(md5(${pattern(error)}), 12)`
}

function columnOf({ key, order }: TableShape, wanted: string): ColumnShape {
  return [...order, ...key].find(({ name }) => name === wanted) as ColumnShape
}

function listed(columns: readonly ColumnShape[]): string {
  return columns.map(({ name }) => `t.${quoted(name)}`).join(', ')
}

/** Columns as a JSON array of texts: moments as ISO 8601, whatever the session's DateStyle is. */
function textOf(columns: readonly ColumnShape[]): string {
  const texts = columns.map(({ name, type }) =>
    /^(date|timestamp)/.test(type) ? `t.${quoted(name)}` : `t.${quoted(name)}::text`,
  )
  return `json_build_array(${texts.join(', ')})::text`
}

/** The columns in such a text, as a row to compare with. */
function rowFrom(parameter: string, columns: readonly ColumnShape[]): string {
  return `(${columns.map(({ type }, index) => `(${parameter}::text::json->>${index})::${type}`).join(', ')})`
}

/** Builds the statements; every one names the index that serves it. */
export function tableStatements(names: TableNames, shape: TableShape): TableStatements {
  const table = tableName(names)
  const keys = shape.key.map(({ name }) => quoted(name))
  const placed = placeColumns(names).map((name) => columnOf(shape, name))
  const [status, result, error] = [quoted(names.status), quoted(names.result), quoted(names.error)]
  const where = names.where === undefined ? '' : `AND (${names.where})`
  const [after, upTo, order, back] = names.descending
    ? ['<', '>=', 'DESC', 'ASC']
    : ['>', '<=', 'ASC', 'DESC']

  const columns = listed(shape.key)
  const inOrder = keys.map((key) => `t.${key} ${order}`).join(', ')
  const backwards = keys.map((key) => `t.${key} ${back}`).join(', ')
  const inPlace = placed.map(({ name }) => `t.${quoted(name)} ${order}`).join(', ')
  const keyText = textOf(shape.key)
  const keyFrom = (parameter: string) => rowFrom(parameter, shape.key)
  const asRead = `t.*, ${keyText} AS triphasekey${names.order.length > 0 ? `, ${textOf(placed)} AS triphaseplace` : ''}`
  const isAfter = `($1::text IS NULL OR (${listed(placed)}) ${after} ${rowFrom('$1', placed)})`
  const isUpTo = `($2::text IS NULL OR (${listed(placed)}) ${upTo} ${rowFrom('$2', placed)})`
  const rowsOf = `json_to_recordset($1::text::json) AS m(${shape.key.map((_, index) => `k${index} text`).join(', ')})`
  const isRow = shape.key.map(({ type }, index) => `t.${keys[index]} = m.k${index}::${type}`).join(' AND ')
  const isPage = keys.map((key) => `t.${key} = page.${key}`).join(' AND ')
  const isError = `t.${status} = 'error' ${where}`
  const keyArrays = keys.map((_, index) => `$${index + 4}::text[]`).join(', ')
  const keyNames = keys.map((_, index) => `k${index}`).join(', ')

  // By the key's unique index: an array of keys, or a LATERAL for each, which nothing but an index can serve.
  const held = (whereLocked: 'SKIP LOCKED' | 'NOWAIT') => {
    const lock = `AND t.${status} = 'pending' FOR NO KEY UPDATE OF t ${whereLocked}`
    return shape.key.length === 1
      ? `SELECT t.tableoid AS part, t.ctid AS place FROM ${table} t
  WHERE t.${keys[0]} = ANY ($4::text[]::${shape.key[0]?.type}[]) ${lock}`
      : `SELECT h.* FROM unnest(${keyArrays}) AS m(${keyNames})
  CROSS JOIN LATERAL (SELECT t.tableoid AS part, t.ctid AS place FROM ${table} t WHERE ${isRow} ${lock}) h`
  }
  // A row that is not locked must not be waited for because another partition's row is in the same place.
  const isHeld = `t.ctid = ANY (ARRAY(SELECT place FROM held))${
    shape.partitioned ? ' AND (t.tableoid, t.ctid) IN (SELECT part, place FROM held)' : ''
  }`

  // Locked by key, then updated by its place, since a join by key reads the whole table where that seems small (20,000
  // rows: 2.6 ms instead of 0.5). SKIP LOCKED: a row that somebody else has locked, or changed in this very moment,
  // holds up no other mark; it is tried again. Counted by a function, whose plan is kept.
  const mark = (whereLocked: 'SKIP LOCKED' | 'NOWAIT') => /* sql */ `
WITH held AS (
  ${held(whereLocked)}
), marked AS (
  UPDATE ${table} t
  SET ${status} = (CASE WHEN m.error IS NULL THEN 'done' ELSE 'error' END)::${shape.statusType},
      ${result} = m.result::${shape.resultType}, ${error} = m.error::${shape.errorType}
  FROM unnest($2::text[], $3::text[], ${keyArrays}) WITH ORDINALITY AS m(result, error, ${keyNames}, n)
  WHERE ${isHeld} AND ${isRow} AND t.${status} = 'pending'
  RETURNING m.n, m.error IS NULL AS is_done
)
SELECT CASE WHEN count(*) < cardinality($3::text[]) THEN coalesce(string_agg(n::text, ' '), '') END AS numbers,
  triphase.sweep_count($1::bigint, count(*) FILTER (WHERE is_done), count(*) FILTER (WHERE NOT is_done))
FROM marked`

  return {
    // By the partial index on the places of pending rows, from the cursor on.
    boundaries: /* sql */ `
SELECT place FROM (
  SELECT ${textOf(placed)} AS place, row_number() OVER (ORDER BY ${inPlace}) AS n, count(*) OVER () AS rows
  FROM (
    SELECT ${listed(placed)} FROM ${table} t
    WHERE t.${status} = 'pending' AND ${isAfter} ${where}
    ORDER BY ${inPlace} LIMIT $2::int
  ) t
) pages WHERE n % $3::int = 0 OR n = rows ORDER BY n`,

    // The same index.
    pending: /* sql */ `
SELECT ${asRead} FROM ${table} t
WHERE t.${status} = 'pending' AND ${isAfter} AND ${isUpTo} ${where}
ORDER BY ${inPlace} LIMIT $3::int`,

    // By the key's unique index.
    pendingRecord: /* sql */ `
SELECT ${asRead} FROM ${table} t WHERE t.${status} = 'pending' AND (${columns}) = ${keyFrom('$1')} ${where}`,

    mark: mark('SKIP LOCKED'),
    markNow: mark('NOWAIT'),

    look: /* sql */ `
SELECT ${keyText} AS recordkey, t.${status} = 'pending' AS pending FROM ${rowsOf} JOIN ${table} t ON ${isRow}`,

    // Reads every row: for plans and reports, never while a run works.
    counts: /* sql */ `
SELECT t.${status}::text AS status, count(*)::text AS count FROM ${table} t
WHERE true ${where} GROUP BY t.${status}`,

    // By the partial index, alone where there is no `where`.
    pendingCount: /* sql */ `SELECT count(*)::text AS count FROM ${table} t WHERE t.${status} = 'pending' ${where}`,

    // By the index on status, like the next three.
    errorGroups: /* sql */ `
SELECT ${group(`t.${error}::text`)} AS group, min(${pattern(`t.${error}::text`)}) AS pattern, count(*)::text AS count,
       min(t.${error}::text) AS example, min(${keyText}) AS recordkey
FROM ${table} t WHERE ${isError} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT $1::int`,

    errors: /* sql */ `
SELECT ${keyText} AS recordkey, t.${error}::text AS message FROM ${table} t
WHERE ${isError} AND ($1::text IS NULL OR ${group(`t.${error}::text`)} = $1::text)
  AND ($2::text IS NULL OR (${columns}) ${after} ${keyFrom('$2')})
ORDER BY ${inOrder} LIMIT $3::int`,

    retryErrors: /* sql */ `
WITH page AS (
  SELECT ${columns} FROM ${table} t
  WHERE ${isError} AND ($2::text IS NULL OR (${columns}) ${after} ${keyFrom('$2')})
  ORDER BY ${inOrder} LIMIT $3::int
), again AS (
  UPDATE ${table} t SET ${status} = 'pending', ${error} = NULL
  FROM page WHERE ${isPage} AND t.${status} = 'error' AND ($1::text IS NULL OR ${group(`t.${error}::text`)} = $1::text)
  RETURNING 1
)
SELECT (SELECT ${keyText} FROM page t ORDER BY ${backwards} LIMIT 1) AS last, (SELECT count(*) FROM again)::int AS count`,

    retryKeys: /* sql */ `
UPDATE ${table} t SET ${status} = 'pending', ${error} = NULL
FROM ${rowsOf} WHERE ${isRow} AND t.${status} = 'error' RETURNING 1`,

    estimate: /* sql */ `EXPLAIN (FORMAT JSON) SELECT FROM ${table} t WHERE t.${status} = 'pending' ${where}`,
  }
}

/** By pg_class, pg_attribute and pg_index: what the columns and unique keys of a table are. `$1` its name, quoted. */
export const DESCRIBE_TABLE: string = /* sql */ `
SELECT c.relkind::text AS kind, c.relkind = 'p' OR c.relhassubclass AS partitioned,
  has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE') AS allowed,
  (SELECT json_agg(json_build_object(
      'name', a.attname, 'type', format_type(a.atttypid, -1),
      'whole', format_type(a.atttypid, a.atttypmod), 'base', coalesce(b.typname, y.typname),
      'notNull', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid)))
    FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = y.typbasetype
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)::text AS columns,
  (SELECT json_agg(json_build_object(
      'unique', i.indisunique, 'mixed', (SELECT count(DISTINCT o & 1) > 1 FROM unnest(i.indoption::int2[]) o),
      'partial', pg_get_expr(i.indpred, i.indrelid),
      'columns', (SELECT json_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum WHERE k.n <= i.indnkeyatts)))
    FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indexprs IS NULL)::text AS indexes
FROM pg_class c WHERE c.oid = to_regclass($1)`

/** Whether the application's role may write what a mark counts, in the engine's schema `$1`; no row: it is not there. */
export const MAY_COUNT: string = /* sql */ `
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
   AND has_table_privilege(c.oid, 'UPDATE') AS allowed
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'sweep_page' WHERE n.nspname = $1`
