import { AISDKError } from '@ai-sdk/provider'
import { type FilePart, generateText, Output, type TextPart } from 'ai'
import { prepareForModel } from '../images.ts'
import type { Secret } from '../settings.ts'
import { answerSchema, storableText } from './answer.ts'
import { DETECTOR_PROVIDER } from './detector/language-model.ts'
import { classifyFailure, ModelCallError } from './failures.ts'
import type { VisionModel } from './resolve.ts'

/** What a camera's owner wants to know about its images. */
export interface AnalysisProfile {
  /** The question, in words. The local detector does not read it. */
  readonly prompt: string
  /** Report only these; everything, when missing or empty. */
  readonly labels?: readonly string[] | null
}

/** One image to look at, or one text to read. */
export type ModelCall = CallOptions &
  (
    | {
        /** The stored file as it is: it is scaled down here. */
        readonly image: Uint8Array
      }
    | { readonly text: string }
  )

interface CallOptions {
  readonly profile: AnalysisProfile
  /** Aborts the call: its timeout, its cancellation, the end of the process. */
  readonly signal: AbortSignal
  /** Sent to providers, so that a repeated request can be recognised as the same one. */
  readonly idempotencyKey: string
}

/** What the model said, unread: plain JSON, so that it can be stored before anything is made of it. */
export interface RawAnswer {
  readonly text: string
  /** `PROVIDER:MODEL`, with the exact model that the provider says has answered. Storable as a Postgres text. */
  readonly model: string
  /** Why the model stopped: `stop`, `length`, `content-filter` and others. */
  readonly finishReason: string
  /** Tokens as the provider counts them; null where nothing is counted. */
  readonly usage: TokenUsage | null
}

/** What a call used of what providers bill. */
export interface TokenUsage {
  readonly inputTokens: number | null
  readonly outputTokens: number | null
}

// Hundreds of times a useful answer. A model that repeats itself without end must not fill the database.
const LONGEST_ANSWER = 200_000
const LONGEST_NAME = 200
// Shorter ones are words, such as the `none` that local servers are given.
const SHORTEST_SECRET = 8

const LOOK = 'You look at one image from a camera and report what you observe, as JSON only:'
const READ =
  'You read one text and report what you find in it, as JSON only; boxes are for images, so each is null:'
const FORM = `{"observations": [{"label": string, "confidence": number or null, "text": string or null, "box": {"x": number, "y": number, "width": number, "height": number} or null}]}
label: one or two words for the kind of thing, in lower case. confidence: 0 to 1. text: a sentence, where a label does not say enough.
box: where it is, x and y being its top left corner; all four as fractions (0 to 1) of the image's width and height, never pixels.
Use null for what you do not know. When there is nothing to report, answer {"observations": []}.`

/**
 * Asks for the schema that `parseAnswer` reads, and parses nothing. `Output.object` would parse what a paid call has
 * answered before the caller has it, and a text that does not fit would survive only inside an error; so its format is
 * requested and its parser replaced.
 */
const unreadAnswer: Output.Output<string, string, never> = {
  ...Output.text(),
  name: 'observations',
  responseFormat: Output.object({ schema: answerSchema, name: 'observations' }).responseFormat,
}

/**
 * Looks at one image, which is scaled down first, or reads one text: exactly one request. Whatever text the model answers is returned,
 * garbage too; `parseAnswer` reads it.
 *
 * @throws {ImageError} when the image cannot be read
 * @throws {ModelCallError} when the request failed
 * @throws {DetectorError} when the local detector failed
 * @throws the signal's reason when it has aborted. `classifyFailure` sorts them all.
 */
export async function callModel(model: VisionModel, call: ModelCall): Promise<RawAnswer> {
  call.signal.throwIfAborted()
  const content = await contentOf(call)
  const result = await generateText({
    model: model.languageModel,
    instructions: `${'image' in call ? LOOK : READ}\n${FORM}`,
    messages: [{ role: 'user', content: [{ type: 'text', text: question(call.profile) }, content] }],
    output: unreadAnswer,
    maxRetries: 0,
    abortSignal: call.signal,
    headers: { 'Idempotency-Key': call.idempotencyKey },
    providerOptions: { [DETECTOR_PROVIDER]: { labels: [...(call.profile.labels ?? [])] } },
  }).catch((error) => {
    call.signal.throwIfAborted()
    if (!AISDKError.isInstance(error)) throw error
    const failure = classifyFailure(error)
    throw new ModelCallError({ ...failure, message: withoutKey(failure.message, model.key) })
  })
  const { usage, response } = result.finalStep
  const { inputTokens, outputTokens } = usage
  const counted = inputTokens !== undefined || outputTokens !== undefined
  return {
    text: result.text.slice(0, LONGEST_ANSWER),
    model: model.local
      ? model.name
      : storableText(`${model.name.split(':')[0]}:${response.modelId}`.slice(0, LONGEST_NAME)),
    finishReason: result.finishReason,
    usage: counted ? { inputTokens: inputTokens ?? null, outputTokens: outputTokens ?? null } : null,
  }
}

async function contentOf(call: ModelCall): Promise<FilePart | TextPart> {
  if (!('image' in call)) return { type: 'text', text: call.text }
  const { bytes, contentType } = await prepareForModel(call.image)
  return { type: 'file', data: bytes, mediaType: contentType }
}

function question({ prompt, labels }: AnalysisProfile): string {
  return labels && labels.length > 0 ? `${prompt}\nReport only these labels: ${labels.join(', ')}.` : prompt
}

/** Servers repeat the key that they refuse, and it need not look like one. */
function withoutKey(message: string, key: Secret | null): string {
  const text = key?.reveal() ?? ''
  return text.length < SHORTEST_SECRET ? message : message.replaceAll(text, '[secret]')
}
