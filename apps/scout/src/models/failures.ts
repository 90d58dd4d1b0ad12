import {
  AISDKError,
  APICallError,
  EmptyResponseBodyError,
  InvalidResponseDataError,
  JSONParseError,
  NoContentGeneratedError,
  TypeValidationError,
} from '@ai-sdk/provider'
import { NoObjectGeneratedError, NoOutputGeneratedError } from 'ai'
import { ImageError } from '../images.ts'
import { ObjectStoreError } from '../object-store.ts'
import { AnswerError, storableText } from './answer.ts'
import type { TokenUsage } from './call.ts'

/**
 * What a failed analysis means for the next attempt. `code` is stable, `message` is for people: no keys, no query
 * strings, bounded, and storable as a Postgres text.
 */
export type Failure =
  /** Trying again cannot help. */
  | { readonly kind: 'permanent'; readonly code: string; readonly message: string }
  /** Come back later, without counting an attempt; `delayMs` is null when the provider did not say when. */
  | {
      readonly kind: 'rate-limited'
      readonly code: string
      readonly message: string
      readonly delayMs: number | null
    }
  /** It may pass: try again, with backoff. */
  | { readonly kind: 'transient'; readonly code: string; readonly message: string }
  /** The model answered, perhaps for money, and the answer is of no use: try again a few times. */
  | {
      readonly kind: 'bad-answer'
      readonly code: string
      readonly message: string
      readonly text: string | null
      readonly usage: TokenUsage | null
    }
  /** The caller's own signal ended it; nothing is known about the other side. */
  | { readonly kind: 'aborted'; readonly code: 'ABORTED'; readonly message: string }

/**
 * A request to a model that failed, sorted already. The provider's own error is left out, also as a cause: it holds the
 * request with the image, and often a part of the key, and causes end up in logs and rows.
 */
export class ModelCallError extends Error {
  readonly code: string
  readonly failure: Failure

  constructor(failure: Failure) {
    super(failure.message)
    this.name = 'ModelCallError'
    this.code = failure.code
    this.failure = failure
  }
}

// A server that says "now" for as long as it refuses would be asked hundreds of times a second, and no attempt counts.
const SHORTEST_DELAY_MS = 1_000
const LONGEST_DELAY_MS = 3_600_000
const LONGEST_TEXT = 4_000
const LONGEST_REASON = 300

/**
 * Sorts what reading an image, calling a model or reading its answer has thrown.
 *
 * @param signal the one given to the call: when it has aborted, that is the reason, whatever was thrown then.
 * @param now milliseconds since 1970, for Retry-After dates.
 */
export function classifyFailure(error: unknown, signal?: AbortSignal, now = Date.now()): Failure {
  if (signal?.aborted)
    return { kind: 'aborted', code: 'ABORTED', message: `The call was aborted: ${reasonOf(signal.reason)}` }
  if (error instanceof ModelCallError) return error.failure
  if (error instanceof ImageError) return { kind: 'permanent', code: error.code, message: error.message }
  if (error instanceof ObjectStoreError) return storeFailure(error)
  if (error instanceof AnswerError) return answerFailure(error)
  if (APICallError.isInstance(error)) return apiFailure(error, now)
  if (NoObjectGeneratedError.isInstance(error))
    return badAnswer('ANSWER_NOT_JSON', error.message, error.text, usageOf(error))
  if (isUselessAnswer(error))
    return badAnswer('ANSWER_INVALID', `The model's answer cannot be used: ${reasonOf(error)}`)
  if (AISDKError.isInstance(error)) {
    return {
      kind: 'permanent',
      code: 'MODEL_CALL_INVALID',
      message: `The model cannot be asked like this: ${reasonOf(error)}`,
    }
  }
  const code =
    error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : 'UNEXPECTED'
  return { kind: 'transient', code, message: reasonOf(error) }
}

function storeFailure(error: ObjectStoreError): Failure {
  const permanent = error.code === 'OBJECT_MISSING' || error.code === 'OBJECT_KEY_INVALID'
  return { kind: permanent ? 'permanent' : 'transient', code: error.code, message: error.message }
}

function answerFailure(error: AnswerError): Failure {
  if (error.code === 'ANSWER_REFUSED') return { kind: 'permanent', code: error.code, message: error.message }
  return badAnswer(error.code, error.message)
}

function apiFailure(error: APICallError, now: number): Failure {
  const { statusCode: status, responseBody: body } = error
  if (status === undefined) {
    return {
      kind: 'transient',
      code: 'MODEL_UNREACHABLE',
      message: `The model's server cannot be reached: ${reasonOf(error)}`,
    }
  }
  if (status < 300) return unreadableResponse(error)
  const said = `The model's server answered ${status}`
  const detail = `: ${reasonOf(error)}`
  if (/insufficient_quota/.test(body ?? '')) {
    // Providers send it as a 429, but waiting does not fill an account.
    return {
      kind: 'transient',
      code: 'MODEL_QUOTA_USED_UP',
      message: `${said}: the account's quota is used up. Check its plan and billing.`,
    }
  }
  const delayMs = retryAfter(error.responseHeaders ?? {}, now)
  if (status === 429 || (status >= 500 && delayMs !== null)) {
    return {
      kind: 'rate-limited',
      code: 'MODEL_RATE_LIMITED',
      message: `${said}: too many requests for now.`,
      delayMs,
    }
  }
  if (status >= 500 || status === 408 || status === 409 || status === 425) {
    return { kind: 'transient', code: 'MODEL_SERVER_ERROR', message: said + detail }
  }
  if (status === 401 || status === 403) {
    // The provider's own words are left out: they repeat a part of the key.
    return {
      kind: 'permanent',
      code: 'MODEL_KEY_REFUSED',
      message: `${said}: the key is not accepted. Check SCOUT_MODEL_KEY and its rights.`,
    }
  }
  if (status === 404) {
    return {
      kind: 'permanent',
      code: 'MODEL_NOT_FOUND',
      message: `${said}${detail}. Check the name in SCOUT_MODEL, and SCOUT_MODEL_URL.`,
    }
  }
  return { kind: 'permanent', code: 'MODEL_REQUEST_REFUSED', message: said + detail }
}

/** A success whose body is not what the protocol says. Without a body the connection was cut while it was read. */
function unreadableResponse({ responseBody: body, cause }: APICallError): Failure {
  if (body === undefined) {
    return {
      kind: 'transient',
      code: 'MODEL_UNREACHABLE',
      message: `The model's server broke off its answer: ${reasonOf(cause)}`,
    }
  }
  if (body.trim() === '') return badAnswer('ANSWER_EMPTY', "The model's server answered with an empty body.")
  return badAnswer(
    'ANSWER_NOT_JSON',
    "The model's server answered with something else than its protocol.",
    body,
  )
}

function isUselessAnswer(error: unknown): boolean {
  return (
    InvalidResponseDataError.isInstance(error) ||
    EmptyResponseBodyError.isInstance(error) ||
    NoContentGeneratedError.isInstance(error) ||
    NoOutputGeneratedError.isInstance(error) ||
    TypeValidationError.isInstance(error) ||
    JSONParseError.isInstance(error)
  )
}

function badAnswer(code: string, message: string, text?: string, usage: TokenUsage | null = null): Failure {
  return {
    kind: 'bad-answer',
    code,
    message,
    text: text ? storableText(text.slice(0, LONGEST_TEXT)) : null,
    usage,
  }
}

function usageOf({ usage }: NoObjectGeneratedError): TokenUsage | null {
  return usage ? { inputTokens: usage.inputTokens ?? null, outputTokens: usage.outputTokens ?? null } : null
}

/**
 * `retry-after-ms` (OpenAI), or `Retry-After` as seconds or as a date: milliseconds, a second to an hour; null when there
 * is none that can be read.
 */
export function retryAfter(headers: Record<string, string>, now: number): number | null {
  const exact = headers['retry-after-ms']
  const usual = headers['retry-after']
  const delay = [
    exact === undefined ? Number.NaN : Number(exact),
    usual === undefined ? Number.NaN : Number(usual) * 1_000,
    usual === undefined ? Number.NaN : Date.parse(usual) - now,
  ].find((milliseconds) => Number.isFinite(milliseconds))
  if (delay === undefined) return null
  return Math.min(LONGEST_DELAY_MS, Math.max(SHORTEST_DELAY_MS, Math.round(delay)))
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  // Cut first as well: the patterns take quadratic time, and a server may send megabytes.
  return storableText(withoutSecrets(text.slice(0, LONGEST_REASON * 4)).slice(0, LONGEST_REASON))
}

/** Takes out of a foreign message what may be secret: query strings and users in URLs, keys, and what looks like one. */
function withoutSecrets(text: string): string {
  return text
    .replace(/(\w+:\/\/)[^\s/@]*@/g, '$1')
    .replace(/(\w+:\/\/[^\s?#"']+)[?#][^\s"']*/g, '$1')
    .replace(/\b(bearer|basic)\s+\S+/gi, '$1 [secret]')
    .replace(/\b(?:sk|pk|rk|gsk|xai|key)[-_][\w*.-]{4,}/gi, '[secret]')
    .replace(/\b(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{24,}\b/gi, '[secret]')
}
