import { z } from 'zod'
import type { RawAnswer } from './call.ts'

/** Where something is: top left corner and size, in fractions (0 to 1) of the image's width and height. */
export interface Box {
  readonly x: number
  readonly y: number
  readonly width: number
  readonly height: number
}

/** One thing seen in an image. Its texts can be stored in Postgres as they are. */
export interface Observation {
  readonly label: string
  /** 0 to 1; null when the model did not say. */
  readonly confidence: number | null
  readonly text: string | null
  readonly box: Box | null
}

/**
 * Why an answer cannot be used: `ANSWER_EMPTY`, `ANSWER_NOT_JSON`, `ANSWER_INVALID` (JSON of another shape),
 * `ANSWER_TRUNCATED` (the model reached its limit of tokens), `ANSWER_REFUSED` (the provider's content policy: asking
 * again will not help).
 */
export type AnswerErrorCode =
  | 'ANSWER_EMPTY'
  | 'ANSWER_NOT_JSON'
  | 'ANSWER_INVALID'
  | 'ANSWER_TRUNCATED'
  | 'ANSWER_REFUSED'

/** An answer that cannot be used. The answer itself is with the caller; the message does not repeat it. */
export class AnswerError extends Error {
  readonly code: AnswerErrorCode

  constructor(code: AnswerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'AnswerError'
    this.code = code
  }
}

/** The shape that models are asked for. No bounds in it: not every provider accepts them in a schema. */
export const answerSchema = z.object({
  observations: z.array(
    z.object({
      label: z.string(),
      confidence: z.number().nullable(),
      text: z.string().nullable(),
      box: z.object({ x: z.number(), y: z.number(), width: z.number(), height: z.number() }).nullable(),
    }),
  ),
})

const MOST_OBSERVATIONS = 200
const LONGEST_LABEL = 200
const LONGEST_TEXT = 10_000
// Models round, so that a box may end a little outside of the image; beyond that they meant pixels.
const ROUNDING = 0.02

const fraction = z
  .number()
  .min(-ROUNDING)
  .max(1 + ROUNDING)
const reading = z.object({
  observations: z
    .array(
      z.object({
        label: z.string().trim().min(1).max(LONGEST_LABEL),
        confidence: z.number().min(0).max(1).nullish(),
        text: z.string().trim().max(LONGEST_TEXT).nullish(),
        box: z.object({ x: fraction, y: fraction, width: fraction, height: fraction }).nullish(),
      }),
    )
    .max(MOST_OBSERVATIONS),
})

/**
 * Reads a stored answer. Pure: the same answer always gives the same observations or the same error.
 *
 * @throws {AnswerError}
 */
export function parseAnswer(answer: RawAnswer): Observation[] {
  if (answer.finishReason === 'content-filter') {
    throw new AnswerError(
      'ANSWER_REFUSED',
      `${answer.model} refused to describe the image, by its content policy. Leave the image out or use another model.`,
    )
  }
  const parsed = reading.safeParse(parseJson(answer))
  if (!parsed.success) {
    const faults = parsed.error.issues
      .slice(0, 5)
      .map((issue) => `${issue.path.join('.') || 'the whole'}: ${issue.message}`)
    throw new AnswerError(
      'ANSWER_INVALID',
      `${answer.model} answered JSON that is not the observations asked for (${faults.join('; ')}).`,
      { cause: parsed.error },
    )
  }
  return parsed.data.observations.map(({ label, confidence, text, box }) => ({
    label: storableText(label),
    confidence: confidence ?? null,
    text: text ? storableText(text) : null,
    box: box ? insideImage(box) : null,
  }))
}

/**
 * Replaces what a Postgres text cannot hold by U+FFFD: the character U+0000, and halves of surrogate pairs, which have
 * no UTF-8.
 */
export function storableText(text: string): string {
  return text.replace(/\0|\p{Surrogate}/gu, '\uFFFD')
}

function parseJson({ text, model, finishReason }: RawAnswer): unknown {
  // Models without structured output wrap their JSON in a Markdown fence.
  const json = text.trim().replace(/^```(?:json)?\s*|\s*```$/g, '')
  if (json === '')
    throw new AnswerError('ANSWER_EMPTY', `${model} answered nothing (it stopped with "${finishReason}").`)
  try {
    return JSON.parse(json)
  } catch (cause) {
    if (finishReason === 'length') {
      throw new AnswerError(
        'ANSWER_TRUNCATED',
        `${model} reached its limit of tokens in the middle of the answer.`,
        { cause },
      )
    }
    throw new AnswerError('ANSWER_NOT_JSON', `${model} answered text that is not JSON.`)
  }
}

function insideImage(box: Box): Box {
  const within = (value: number, most: number) => Math.min(most, Math.max(0, value))
  const x = within(box.x, 1)
  const y = within(box.y, 1)
  return { x, y, width: within(box.width, 1 - x), height: within(box.height, 1 - y) }
}
