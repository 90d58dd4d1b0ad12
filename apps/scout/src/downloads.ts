import { Permanent, RetryAfter } from 'triphase'
import { retryAfter } from './models/failures.ts'

const LARGEST_BYTES = 50 * 2 ** 20
const LONGEST_MS = 60_000
const UNKNOWN_DELAY_MS = 20_000
/** Later it may be there: request timeouts, locks, too early. Of the other 4xx none gets better. */
const PASSES = [408, 409, 423, 425]

/** The text as a URL that can be downloaded; null: it is none. */
export function downloadable(text: string): URL | null {
  const url = URL.canParse(text) ? new URL(text) : null
  return url && /^https?:$/.test(url.protocol) && !url.username && !url.password ? url : null
}

/**
 * Downloads at most 50 MB within a minute, by http or https, through redirects. Messages name the host alone: paths and
 * queries may be signed.
 *
 * @throws {Permanent} when trying again cannot help.
 * @throws {RetryAfter} when the server said later.
 * @throws an Error for what may pass, or the signal's reason.
 */
export async function download(url: URL, signal: AbortSignal): Promise<Uint8Array> {
  const late = AbortSignal.timeout(LONGEST_MS)
  try {
    const response = await fetch(url, { signal: AbortSignal.any([signal, late]) })
    refuseStatus(url, response)
    return await bounded(url, response)
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof Permanent || error instanceof RetryAfter) throw error
    if (late.aborted) throw new Error(`${url.host} did not send all of it within ${LONGEST_MS / 1_000} s.`)
    if (error instanceof StatusError) throw error
    const { cause, message } = error as Error
    const known = cause instanceof Error ? cause.message : message
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : known
    throw new Error(`${url.host} cannot be reached (${code}).`)
  }
}

/** A status that may pass. */
class StatusError extends Error {}

function refuseStatus(url: URL, response: Response): void {
  if (response.ok) return
  const said = `${url.host} answered ${response.status}.`
  void response.body?.cancel().catch(() => {})
  if (response.status === 429 || response.status === 503) {
    const delayMs = retryAfter(Object.fromEntries(response.headers), Date.now())
    throw new RetryAfter(delayMs ?? UNKNOWN_DELAY_MS, said)
  }
  if (response.status >= 500 || PASSES.includes(response.status)) throw new StatusError(said)
  throw new Permanent(said)
}

async function bounded(url: URL, response: Response): Promise<Uint8Array> {
  const tooLarge = () => new Permanent(`${url.host} sends more than ${LARGEST_BYTES / 2 ** 20} MB.`)
  const parts: Uint8Array[] = []
  let length = 0
  if (Number(response.headers.get('content-length')) > LARGEST_BYTES) {
    await response.body?.cancel()
    throw tooLarge()
  }
  // What is thrown in the loop cancels the body.
  for await (const part of response.body ?? []) {
    length += part.length
    if (length > LARGEST_BYTES) throw tooLarge()
    parts.push(part)
  }
  return Buffer.concat(parts)
}
