import type pg from 'pg'
import { alreadyDone, defineStagedTask, Permanent, RejectedAnswer, RetryAfter, type Task } from 'triphase'
import { z } from 'zod'
import { type AnalysisError, beginAnalysis, completeAnalysis, failAnalysis } from './captures.ts'
import { AnswerError, parseAnswer, storableText } from './models/answer.ts'
import { callModel, type RawAnswer } from './models/call.ts'
import { classifyFailure, type Failure } from './models/failures.ts'
import type { VisionModel } from './models/resolve.ts'
import type { ObjectStore } from './object-store.ts'

/** What the task works with. */
export interface AnalyseCaptureParts {
  readonly model: VisionModel
  readonly store: ObjectStore
  /** Milliseconds for one attempt: prepare, download and model call. */
  readonly timeoutMs: number
}

/** Where its jobs wait. */
export const ANALYSIS_QUEUE = 'processing'

/** A provider that says "later" without saying when. */
const UNKNOWN_DELAY_MS = 20_000
// A person may kill Scout many times while an image is analysed, and means no harm by it. An image that ends the
// process by itself is still given up some day; until then it runs beside no other suspect.
const MOST_CRASHES = 20

export type AnalyseCapture = Task<{ captureId: string }, pg.PoolClient>

/**
 * Analyses a capture in three phases: a short transaction finds or creates the analysis under a lock on the capture;
 * the image is downloaded and the model called while no connection is held; a short transaction writes the
 * observations and completes the analysis together with the job.
 */
export function analyseCapture({ model, store, timeoutMs }: AnalyseCaptureParts): AnalyseCapture {
  return defineStagedTask({
    name: 'analyse-capture',
    queue: ANALYSIS_QUEUE,
    timeout: timeoutMs,
    maxAttempts: 4,
    maxCrashes: MOST_CRASHES,
    backoff: { initial: '1s', max: '1m' },
    input: z.object({ captureId: z.string().regex(/^\d+$/) }),
    async prepare({ tx, input }) {
      const analysis = await beginAnalysis(tx, input.captureId)
      if (!analysis) throw permanent('CAPTURE_MISSING', `There is no capture ${input.captureId} any more.`)
      if (analysis.completed) return alreadyDone({ captureId: input.captureId, analysisId: analysis.id })
      const { id, objectKey, profile } = analysis
      if (!profile)
        throw permanent('PROFILE_MISSING', 'The camera has no analysis profile. Give it one and run again.')
      return { analysisId: id, objectKey, profile }
    },
    async call({ prepared, signal, idempotencyKey }): Promise<RawAnswer> {
      try {
        const image = await store.get(prepared.objectKey, signal)
        const answer = await callModel(model, { image, profile: prepared.profile, signal, idempotencyKey })
        refuseRefusal(answer)
        return answer
      } catch (error) {
        throw engineError(classifyFailure(error, signal), error)
      }
    },
    async commit({ tx, input, prepared, answer }) {
      const observations = readAnswer(answer)
      const { model: name, usage } = answer
      await completeAnalysis(tx, prepared.analysisId, { observations, model: name, usage })
      return { ...input, analysisId: prepared.analysisId, observations: observations.length }
    },
    abandon: ({ tx, input, error }) => failAnalysis(tx, input.captureId, analysisError(error, timeoutMs)),
  })
}

/** Why an attempt failed, in Scout's terms. */
export function analysisError(
  error: Error | { message: string; code?: string },
  timeoutMs: number,
): AnalysisError {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : 'UNEXPECTED'
  const late = `There was no answer within ${timeoutMs / 1_000} s, which SCOUT_CALL_TIMEOUT allows.`
  return { code, message: code === 'TIMEOUT' ? late : storableText(error.message) }
}

/**
 * A refusal by content policy is not kept as the capture's answer, as garbage is: it would be found again when the
 * person who was told to use another model does so.
 */
function refuseRefusal(answer: RawAnswer): void {
  if (answer.finishReason === 'content-filter') parseAnswer(answer)
}

function readAnswer(answer: RawAnswer) {
  try {
    return parseAnswer(answer)
  } catch (cause) {
    if (!(cause instanceof AnswerError)) throw cause
    throw coded(new RejectedAnswer(cause.message), cause.code)
  }
}

/**
 * A failure in the engine's terms: what can never work, what has to wait, and what may work the next time. The thrown
 * error is not kept as a cause: errors of providers repeat requests and parts of keys.
 */
export function engineError(failure: Failure, thrown: unknown): unknown {
  const { code, message } = failure
  switch (failure.kind) {
    case 'permanent':
      return permanent(code, message)
    case 'rate-limited':
      return coded(new RetryAfter(failure.delayMs ?? UNKNOWN_DELAY_MS, message), code)
    case 'aborted':
      return thrown
    default:
      return coded(new Error(message), code)
  }
}

function permanent(code: string, message: string): Permanent {
  return coded(new Permanent(message), code)
}

/** The engine keeps an error's code with the job, and `abandon` gets it. */
function coded<Thrown extends Error>(error: Thrown, code: string): Thrown {
  return Object.assign(error, { code })
}
