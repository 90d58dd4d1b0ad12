import { CommanderError } from 'commander'
import { EXIT, type ExitCode } from './exit-codes.ts'

/** Something that a person can mend: what happened, and what to do. */
export class Problem extends Error {
  readonly code: string
  readonly exitCode: ExitCode

  constructor(exitCode: ExitCode, code: string, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'Problem'
    this.code = code
    this.exitCode = exitCode
  }
}

/** An error as it is told to people and to programs. */
export interface Explanation {
  exitCode: ExitCode
  code: string
  message: string
}

/** What the engine's codes mean for whoever started this program; those that are not here were not expected. */
const EXIT_OF: Readonly<Record<string, ExitCode>> = {
  INVALID_OPTIONS: EXIT.usage,
  INVALID_DURATION: EXIT.usage,
  INVALID_CONFIG: EXIT.config,
  CONNECTION_FAILED: EXIT.database,
  DISK_FULL: EXIT.database,
  LOGIN_REFUSED: EXIT.database,
  MIGRATION_LOCKED: EXIT.database,
  MIGRATION_NEEDED: EXIT.database,
  NO_PERMISSION: EXIT.database,
  SCHEMA_TOO_NEW: EXIT.database,
  SERVER_TOO_OLD: EXIT.database,
  STATEMENT_TIMEOUT: EXIT.database,
  SWEEP_TABLE: EXIT.database,
  WRITE_REFUSED: EXIT.database,
  // The application's role may not, a database that is not there, a disk that is full.
  '42501': EXIT.database,
  '3D000': EXIT.database,
  '53100': EXIT.database,
  NO_SWEEP_RUN: EXIT.refused,
  // Of files: what is typed names one that cannot be used; what is there does not allow it.
  FILE_CHANGED: EXIT.usage,
  FILE_FAULTS: EXIT.usage,
  FILE_UNREADABLE: EXIT.usage,
  FILE_UNWRITABLE: EXIT.usage,
  FILE_LOADED: EXIT.refused,
  FILE_LOADING: EXIT.refused,
  NO_FILE: EXIT.refused,
  SWEEP_OPEN: EXIT.refused,
  // A key that is none: what Postgres says of a text that its type refuses, or a number that is too large for it.
  '22P02': EXIT.usage,
  '22003': EXIT.usage,
}

/** The engine's remedies name its API; a person at a command line has these words for it. */
const COMMANDS: readonly (readonly [api: string, command: string])[] = [
  ['Call engine.migrate()', 'Run triphase migrate'],
  ['the SQL that migrationSql() prints', 'the SQL that triphase migrate --print prints'],
  ['Call run() first', 'Begin with: triphase sweep NAME run'],
  ['Load one with loadFile first', 'Begin with: triphase sweep NAME load FILE'],
  ['ask for it to be replaced', 'add --replace'],
  ['engine.sweep(sweep).migration() writes', 'triphase sweep NAME migration prints'],
  [' (loadFile creates that of a file sweep)', ''],
]

/** A file's table is made when it is loaded. */
const COMMANDS_OF_FILES: typeof COMMANDS = [
  ['engine.sweep(sweep).migration() writes', 'triphase sweep NAME load FILE makes'],
  [
    'Create it, or let this role see its schema (loadFile',
    'triphase sweep NAME load FILE makes it (loadFile',
  ],
]

/** The sweep that something was done with. */
interface Concerned {
  readonly name: string
  readonly isFile: boolean
}

/** Says what happened and what to do, without secrets. Errors of other copies of the engine count too. */
export function explain(error: unknown, sweep: Concerned = { name: 'NAME', isFile: false }): Explanation {
  if (error instanceof CommanderError) {
    const message = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    return { exitCode: EXIT.usage, code: 'USAGE', message: `${message} (--help shows what there is)` }
  }
  if (error instanceof Problem) {
    const { exitCode, code, message } = error
    return { exitCode, code, message: withoutSecrets(message) }
  }
  const code = codeOf(error)
  const commands = sweep.isFile ? [...COMMANDS_OF_FILES, ...COMMANDS] : COMMANDS
  const told = commands.reduce(
    (text, [api, command]) => text.replace(api, command.replace('NAME', sweep.name)),
    messageOf(error),
  )
  return {
    exitCode: EXIT_OF[code] ?? EXIT.unexpected,
    code,
    message: withoutSecrets(told),
  }
}

/** Whether the database could not be reached, so that the same may work later. */
export function isAway(error: unknown): boolean {
  return ['CONNECTION_FAILED', 'LOGIN_REFUSED', 'STATEMENT_TIMEOUT'].includes(codeOf(error))
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error)
}

function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? code : 'UNEXPECTED'
}

/** A URL's password, and one given as a parameter. */
export function withoutSecrets(text: string): string {
  return text
    .replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:/@]*):[^\s/]*@/gi, '$1:***@')
    .replaceAll(/\b(password|sslpassword|token|api[-_]?key)=[^\s&'"]+/gi, '$1=***')
}
