import type pg from 'pg'
import { alreadyDone, defineStagedTask, Permanent, RejectedAnswer, RetryAfter, type Task } from 'triphase'
import { z } from 'zod'
import { beginAnalysis, completeAnalysis, failAnalysis } from './captures.ts'
import { AnswerError, parseAnswer } from './models/answer.ts'
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

/** A provider that says "later" without saying when. */
const UNKNOWN_DELAY_MS = 20_000

export type AnalyseCapture = Task<{ captureId: string }, pg.PoolClient>

/**
 * Analyses a capture in three phases: a short transaction finds or creates the analysis under a lock on the capture;
 * the image is downloaded and the model called while no connection is held; a short transaction writes the
 * observations and completes the analysis together with the job.
 */
export function analyseCapture({ model, store, timeoutMs }: AnalyseCaptureParts): AnalyseCapture {
  return defineStagedTask({
    name: 'analyse-capture',
    queue: 'processing',
    timeout: timeoutMs,
    maxAttempts: 4,
    backoff: { initial: '1s', max: '1m' },
    input: z.object({ captureId: z.string().regex(/^\d+$/) }),
    async prepare({ tx, input }) {
      const analysis = await beginAnalysis(tx, input.captureId)
      if (!analysis) throw new Permanent(`There is no capture ${input.captureId} any more.`)
      if (analysis.completed) return alreadyDone({ analysisId: analysis.id })
      const { id, objectKey, profile } = analysis
      if (!profile)
        throw new Permanent('The camera of this capture has no analysis profile. Give it one and run again.')
      return { analysisId: id, objectKey, profile }
    },
    async call({ prepared, signal, idempotencyKey }): Promise<RawAnswer> {
      try {
        const image = await store.get(prepared.objectKey, signal)
        return await callModel(model, { image, profile: prepared.profile, signal, idempotencyKey })
      } catch (error) {
        throw engineError(classifyFailure(error, signal), error)
      }
    },
    async commit({ tx, prepared, answer }) {
      const observations = readAnswer(answer)
      const { model: name, usage } = answer
      await completeAnalysis(tx, prepared.analysisId, { observations, model: name, usage })
      return { analysisId: prepared.analysisId, observations: observations.length }
    },
    abandon: ({ tx, input, error }) => failAnalysis(tx, input.captureId, error.message),
  })
}

function readAnswer(answer: RawAnswer) {
  try {
    return parseAnswer(answer)
  } catch (cause) {
    if (!(cause instanceof AnswerError)) throw cause
    if (cause.code === 'ANSWER_REFUSED') throw new Permanent(cause.message, { cause })
    throw new RejectedAnswer(cause.message, { cause })
  }
}

/**
 * A failure in the engine's terms: what can never work, what has to wait, and what may work the next time. The thrown
 * error is not kept as a cause: errors of providers repeat requests and parts of keys.
 */
function engineError(failure: Failure, thrown: unknown): unknown {
  switch (failure.kind) {
    case 'permanent':
      return new Permanent(failure.message)
    case 'rate-limited':
      return new RetryAfter(failure.delayMs ?? UNKNOWN_DELAY_MS, failure.message)
    case 'aborted':
      return thrown
    default:
      return new Error(failure.message)
  }
}
