import { EmbeddedPostgresError } from './errors.ts'

export interface EmbeddedPostgresOptions {
  /**
   * The folder for the data, the password and the log, absolute or relative to the current folder. It is made when
   * missing; when it exists it has to be empty or to come from an earlier start.
   */
  directory: string
  /**
   * The database that the url points to, made when missing: 1 to 63 bytes without `/`, `?` and `#`, which drivers read
   * differently in urls. Default: `postgres`, which every cluster has.
   */
  database?: string
  /**
   * Settings of Postgres by name, as in `postgresql.conf`: `{ max_connections: '200', log_statement: 'all' }`. They hold
   * for this run of the server. The first user of a server decides: whoever attaches to a running one gets its settings.
   *
   * Defaults: `max_connections` 100, `shared_buffers` 128MB, and otherwise those of Postgres, so that a commit is durable
   * (`fsync` and `synchronous_commit` are on).
   */
  settings?: Record<string, string>
}

export interface CheckedOptions {
  directory: string
  database: string
  settings: Record<string, string>
}

const DEFAULT_SETTINGS = { max_connections: '100', shared_buffers: '128MB' }

/** Where the server is, and who may connect, is what this package decides. */
const RESERVED_SETTINGS = [
  'config_file',
  'data_directory',
  'external_pid_file',
  'hba_file',
  'ident_file',
  'listen_addresses',
  'logging_collector',
  'port',
  'unix_socket_directories',
]

export function checkOptions(options: EmbeddedPostgresOptions): CheckedOptions {
  const known = ['directory', 'database', 'settings']
  const unknown = Object.keys(options).filter((key) => !known.includes(key))
  if (unknown.length > 0) throw invalid(`${unknown.join(', ')}: no such option, only ${known.join(', ')}`)
  const { directory, database = 'postgres', settings = {} } = options
  // Postgres writes the path into a file that is read line by line.
  if (typeof directory !== 'string' || directory === '' || /[\0\n]/.test(directory))
    throw invalid('directory: has to be a path without line breaks')
  if (typeof database !== 'string' || /^$|[\0/?#]/.test(database) || Buffer.byteLength(database) > 63)
    throw invalid('database: has to be a name of 1 to 63 bytes without / ? #')
  return { directory, database, settings: { ...DEFAULT_SETTINGS, ...checkSettings(settings) } }
}

function checkSettings(settings: Record<string, string>): Record<string, string> {
  const checked = Object.entries(settings).map(([name, value]) => {
    // Postgres takes any mixture of cases, and hyphens for underscores.
    const canonical = name.toLowerCase().replaceAll('-', '_')
    if (!/^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$/.test(canonical))
      throw invalid(`settings: ${name} is not a name`)
    if (RESERVED_SETTINGS.includes(canonical)) throw invalid(`settings: ${name} is decided by this package`)
    if (typeof value !== 'string' || value.includes('\0'))
      throw invalid(`settings: ${name} has to be a string`)
    return [canonical, value]
  })
  return Object.fromEntries(checked)
}

function invalid(problem: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'INVALID_OPTIONS',
    `Correct the options of startEmbeddedPostgres. ${problem}.`,
  )
}
