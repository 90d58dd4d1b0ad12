import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { inspect } from 'node:util'
import { z } from 'zod'

/** A value that is used but never shown: printing, JSON and string conversion all give `[secret]`. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  /** The value itself, for the one place that needs it. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}

/** Which model looks at the images: a provider's, or the detector that runs in this process. */
export type ModelChoice =
  | { readonly provider: 'detector' }
  | {
      readonly provider: 'openai' | 'anthropic'
      readonly model: string
      readonly url: string | null
      readonly key: Secret
    }
  | {
      readonly provider: 'compatible'
      readonly model: string
      readonly url: string
      readonly key: Secret | null
    }

/** Where the bytes of captures are kept. `endpoint` is null for Amazon's own S3. */
export type StoreChoice =
  | { readonly kind: 'folder'; readonly folder: string }
  | { readonly kind: 's3'; readonly bucket: string; readonly endpoint: string | null }

/** Everything that the environment decides, read once and frozen. */
export interface Settings {
  readonly model: ModelChoice
  readonly store: StoreChoice
  /** Images analysed at once. */
  readonly concurrency: number
  /** Connections of the application's pool. */
  readonly appPool: number
  /** Connections of the engine's pool. */
  readonly enginePool: number
  /** Milliseconds that one analysis may take, download and model call together. */
  readonly callTimeoutMs: number
  /** null: the embedded Postgres in `dataFolder`. */
  readonly databaseUrl: Secret | null
  /** A way to the same database around a pooler, for LISTEN. */
  readonly databaseDirectUrl: Secret | null
  /** Absolute path of the folder for local data. */
  readonly dataFolder: string
}

/** One variable that cannot be used, and what would be allowed. Never contains a secret. */
export interface SettingFault {
  readonly variable: string
  readonly message: string
}

/** `INVALID_SETTINGS`: the environment cannot be used. The message lists all faults, one a line. */
export class SettingsError extends Error {
  readonly code = 'INVALID_SETTINGS'
  readonly faults: readonly SettingFault[]

  constructor(faults: readonly SettingFault[]) {
    const lines = faults.map((fault) => `  ${fault.variable}: ${fault.message}`)
    super(`Scout cannot start with these settings. Correct or unset the variables:\n${lines.join('\n')}`)
    this.name = 'SettingsError'
    this.faults = faults
  }
}

// Node's fetch gives up on an answer after 300 s by itself, so a longer timeout would be a promise not kept.
const LONGEST_CALL_MS = 290_000
const PROJECT_ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000 }

const Environment = z.object({
  SCOUT_MODEL: z.string().transform(readModelName).optional(),
  SCOUT_MODEL_URL: z.string().transform(readHttpUrl).optional(),
  SCOUT_MODEL_KEY: z.string().transform(readKey).optional(),
  SCOUT_CONCURRENCY: z.string().transform(wholeNumber(1, 1_000)).default(12),
  SCOUT_APP_POOL: z.string().transform(wholeNumber(1, 200)).default(10),
  SCOUT_ENGINE_POOL: z.string().transform(wholeNumber(2, 200)).default(6),
  SCOUT_CALL_TIMEOUT: z.string().transform(readTimeout).default(150_000),
  SCOUT_DATA: z.string().default(path.join(PROJECT_ROOT, '.scout')),
  SCOUT_S3_BUCKET: z.string().transform(readBucket).optional(),
  SCOUT_S3_ENDPOINT: z.string().transform(readHttpUrl).optional(),
  DATABASE_URL: z.string().transform(readDatabaseUrl).optional(),
  DATABASE_DIRECT_URL: z.string().transform(readDatabaseUrl).optional(),
})

type Parsed = z.output<typeof Environment>

/**
 * Reads and checks all settings. A variable that is set to nothing counts as not set.
 *
 * @throws {SettingsError} that names every variable that cannot be used, with what is allowed.
 */
export function readSettings(environment: NodeJS.ProcessEnv = process.env): Settings {
  const given = Object.fromEntries(
    Object.entries(environment).filter(([, value]) => value !== undefined && value.trim() !== ''),
  )
  const parsed = Environment.safeParse(given)
  const faults = [
    ...unknownVariables(given),
    ...(parsed.error?.issues ?? []).map((issue) => ({
      variable: String(issue.path[0]),
      message: issue.message,
    })),
    ...missingOrUnusedVariables(given),
  ]
  if (faults.length > 0 || !parsed.success) throw new SettingsError(faults)
  return freeze(parsed.data)
}

function freeze(values: Parsed): Settings {
  const dataFolder = path.resolve(values.SCOUT_DATA)
  return Object.freeze({
    model: Object.freeze(modelChoice(values)),
    store: Object.freeze(storeChoice(values, dataFolder)),
    concurrency: values.SCOUT_CONCURRENCY,
    appPool: values.SCOUT_APP_POOL,
    enginePool: values.SCOUT_ENGINE_POOL,
    callTimeoutMs: values.SCOUT_CALL_TIMEOUT,
    databaseUrl: values.DATABASE_URL ?? null,
    databaseDirectUrl: values.DATABASE_DIRECT_URL ?? null,
    dataFolder,
  })
}

function modelChoice(values: Parsed): ModelChoice {
  const { SCOUT_MODEL: named, SCOUT_MODEL_URL: url = null, SCOUT_MODEL_KEY: key = null } = values
  if (named?.provider === 'compatible' && url !== null)
    return { provider: 'compatible', model: named.model, url, key }
  if (named && named.provider !== 'compatible' && key !== null) {
    return { provider: named.provider, model: named.model, url, key }
  }
  return { provider: 'detector' }
}

function storeChoice(values: Parsed, dataFolder: string): StoreChoice {
  const { SCOUT_S3_BUCKET: bucket, SCOUT_S3_ENDPOINT: endpoint = null } = values
  return bucket === undefined
    ? { kind: 'folder', folder: path.join(dataFolder, 'objects') }
    : { kind: 's3', bucket, endpoint }
}

function missingOrUnusedVariables(given: Record<string, string | undefined>): SettingFault[] {
  const has = (variable: string) => given[variable] !== undefined
  const provider = given.SCOUT_MODEL?.split(':')[0]
  const byKey = provider === 'openai' || provider === 'anthropic'
  const useless =
    'has no effect without SCOUT_MODEL. Set SCOUT_MODEL too, or unset it to use the local detector.'
  const rules: [boolean, string, string][] = [
    [
      provider === 'compatible' && !has('SCOUT_MODEL_URL'),
      'SCOUT_MODEL_URL',
      'is needed with SCOUT_MODEL=compatible:MODEL, such as http://localhost:11434/v1.',
    ],
    [byKey && !has('SCOUT_MODEL_KEY'), 'SCOUT_MODEL_KEY', `is needed with SCOUT_MODEL=${provider}:MODEL.`],
    [!provider && has('SCOUT_MODEL_URL'), 'SCOUT_MODEL_URL', useless],
    [!provider && has('SCOUT_MODEL_KEY'), 'SCOUT_MODEL_KEY', useless],
    [
      !has('SCOUT_S3_BUCKET') && has('SCOUT_S3_ENDPOINT'),
      'SCOUT_S3_ENDPOINT',
      'has no effect without SCOUT_S3_BUCKET.',
    ],
    [
      !has('DATABASE_URL') && has('DATABASE_DIRECT_URL'),
      'DATABASE_DIRECT_URL',
      'has no effect without DATABASE_URL.',
    ],
  ]
  return rules.filter(([broken]) => broken).map(([, variable, message]) => ({ variable, message }))
}

function unknownVariables(given: Record<string, string | undefined>): SettingFault[] {
  const known = Object.keys(Environment.shape)
  return Object.keys(given)
    .filter((name) => name.startsWith('SCOUT_') && !known.includes(name))
    .sort()
    .map((name) => ({ variable: name, message: `is not a setting of Scout.${suggestion(name, known)}` }))
}

function suggestion(name: string, known: readonly string[]): string {
  const [closest] = known
    .map((other) => ({ other, distance: editDistance(name, other) }))
    .sort((a, b) => a.distance - b.distance)
  if (closest && closest.distance <= 4) return ` Did you mean ${closest.other}?`
  return ` Known: ${known.filter((other) => other.startsWith('SCOUT_')).join(', ')}.`
}

function editDistance(from: string, to: string): number {
  let previous = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (let row = 1; row <= from.length; row++) {
    const current = [row]
    for (let column = 1; column <= to.length; column++) {
      const replaced = previous[column - 1]! + (from[row - 1] === to[column - 1] ? 0 : 1)
      current[column] = Math.min(replaced, previous[column]! + 1, current[column - 1]! + 1)
    }
    previous = current
  }
  return previous[to.length]!
}

function refuse(context: z.RefinementCtx, message: string): never {
  context.addIssue({ code: 'custom', message })
  return z.NEVER
}

// Values of SCOUT_MODEL, of keys and of URLs are not repeated in messages: people paste keys into the wrong variable.
function readModelName(text: string, context: z.RefinementCtx) {
  const [, provider, model] = /^(openai|anthropic|compatible):(\S+)$/.exec(text) ?? []
  if (model === undefined)
    return refuse(
      context,
      'must be openai:MODEL, anthropic:MODEL or compatible:MODEL, or unset for the local detector.',
    )
  return { provider: provider as 'openai' | 'anthropic' | 'compatible', model }
}

function readHttpUrl(text: string, context: z.RefinementCtx): string {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol))
    return refuse(context, 'must be a URL that starts with http:// or https://.')
  if (url.username || url.password)
    return refuse(context, 'must not contain a user name or password. Keys have variables of their own.')
  if (url.search || url.hash) return refuse(context, 'must end before any ? or #: paths are added to it.')
  return text.replace(/\/+$/, '')
}

function readKey(text: string, context: z.RefinementCtx): Secret {
  if (!/^[\x21-\x7e]+$/.test(text))
    return refuse(context, 'must be a key of printable characters without spaces.')
  return new Secret(text)
}

function readBucket(text: string, context: z.RefinementCtx): string {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(text)) {
    return refuse(context, 'must be a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens.')
  }
  return text
}

function readDatabaseUrl(text: string, context: z.RefinementCtx): Secret {
  if (!URL.canParse(text) || !/^postgres(ql)?:\/\/./.test(text)) {
    return refuse(context, 'must be a URL such as postgres://USER:PASSWORD@HOST:5432/DATABASE.')
  }
  return new Secret(text)
}

function wholeNumber(low: number, high: number) {
  return (text: string, context: z.RefinementCtx): number => {
    const value = /^\d{1,9}$/.test(text.trim()) ? Number(text) : Number.NaN
    if (value >= low && value <= high) return value
    return refuse(
      context,
      `must be a whole number from ${low} to ${high}, not ${JSON.stringify(text.slice(0, 40))}.`,
    )
  }
}

function readTimeout(text: string, context: z.RefinementCtx): number {
  const [, amount, unit] = /^(\d{1,9}(?:\.\d+)?)(ms|s|m)$/.exec(text.trim()) ?? []
  const milliseconds = Number(amount) * (UNIT_MS[unit ?? ''] ?? Number.NaN)
  if (milliseconds >= 1 && milliseconds <= LONGEST_CALL_MS) return milliseconds
  return refuse(
    context,
    `must be a time of at most ${LONGEST_CALL_MS / 1_000}s with a unit (ms, s or m), such as 150s, not ${JSON.stringify(text.slice(0, 40))}.`,
  )
}
