import { existsSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Engine } from 'triphase'
import { EXIT } from './exit-codes.ts'
import { messageOf, Problem } from './problem.ts'

/** Names that are looked for in the working directory, in this order. */
const CONFIG_NAMES: readonly string[] = ['ts', 'mts', 'js', 'mjs'].map((end) => `triphase.config.${end}`)

/** The engine of a config file, whatever its application's transactions are. */
export type ConfiguredEngine = Engine<unknown>

/** What a config file exports. */
export interface Configured {
  readonly engine: ConfiguredEngine
  /** The application's `pg.Pool`, which only files need. */
  readonly pool: unknown
}

/**
 * Runs the config file and takes its engine: the default export, or the one that is named `engine`.
 *
 * @throws {Problem} `CONFIG_MISSING`, `CONFIG_FAILED`, `CONFIG_NO_ENGINE`; what the file itself throws as its cause.
 */
export async function loadConfig(given: string | undefined): Promise<Configured> {
  const file = given === undefined ? found() : existing(given)
  const exported = await load(file)
  const engine = exported.default ?? exported.engine
  if (isEngine(engine)) return { engine, pool: exported.pool }
  throw new Problem(
    EXIT.config,
    'CONFIG_NO_ENGINE',
    `${file} exports no engine. Let it end with: export default createEngine({ … }).`,
  )
}

function found(): string {
  const file = CONFIG_NAMES.map((name) => path.resolve(name)).find((name) => existsSync(name))
  if (file !== undefined) return file
  throw new Problem(
    EXIT.config,
    'CONFIG_MISSING',
    `There is no ${CONFIG_NAMES.join(', ')} in ${process.cwd()}. Write one that exports your engine, or name another file with --config.`,
  )
}

function existing(given: string): string {
  const file = path.resolve(given)
  if (existsSync(file)) return file
  throw new Problem(EXIT.config, 'CONFIG_MISSING', `There is no file ${file}.`)
}

async function load(file: string): Promise<{ default?: unknown; engine?: unknown; pool?: unknown }> {
  try {
    return await import(pathToFileURL(file).href)
  } catch (error) {
    const remedy = remedyFor(error)
    throw new Problem(
      EXIT.config,
      codeOf(error) === 'INVALID_CONFIG' ? 'INVALID_CONFIG' : 'CONFIG_FAILED',
      `${file} cannot be loaded: ${messageOf(error)}${remedy ? ` ${remedy}` : ''}`,
      { cause: error },
    )
  }
}

const LOADER = `or let a loader read it: NODE_OPTIONS='--import tsx' triphase … (after npm install tsx)`

/** Node runs TypeScript by leaving the types out; what that cannot do has a way around it. */
function remedyFor(error: unknown): string {
  switch (codeOf(error)) {
    case 'ERR_UNKNOWN_FILE_EXTENSION':
      return `This Node (${process.version}) does not run TypeScript: take Node 22.18 or later, write the file as .mjs, ${LOADER}.`
    case 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX':
      return `Node only leaves types out, so enums, namespaces and parameter properties do not work: write it without them, ${LOADER}.`
    case 'ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING':
      return 'Node runs no TypeScript in node_modules: import the built file.'
    case 'ERR_MODULE_NOT_FOUND':
    case 'ERR_UNSUPPORTED_DIR_IMPORT':
      return `Node takes imports as they are written, with the ending of the file that is there ('./tasks.ts') and without a tsconfig's paths: write them so, ${LOADER}.`
    default:
      return ''
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

/** By what it can do: the file may have a copy of the engine of its own. */
function isEngine(value: unknown): value is ConfiguredEngine {
  if (typeof value !== 'object' || value === null) return false
  return ['sweep', 'migrate', 'start', 'stop'].every((name) => name in value) && 'sweeps' in value
}
