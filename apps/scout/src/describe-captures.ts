import { defineSweep, Permanent, pgTransactor, type Sweep } from 'triphase'
import { z } from 'zod'
import { captureToDescribe, replaceObservations } from './captures.ts'
import { parseAnswer } from './models/answer.ts'
import { callModel } from './models/call.ts'
import type { CallParts } from './run-sweep.ts'

const NAME = 'describe-captures'

/**
 * Has the model look at captures again, with what their camera's profile says now. New observations take the place of the
 * old ones in one short transaction, after the call; a capture of which that fails keeps the old ones.
 */
export function describeCaptures({
  settings,
  model,
  store,
  pool,
  callFailed,
}: CallParts): Sweep<{ id: string }> {
  const { transaction } = pgTransactor(pool)
  return defineSweep({
    name: NAME,
    queue: NAME,
    table: {
      name: 'scout.capture',
      key: 'id',
      status: 'backfill_status',
      result: 'backfill_result',
      error: 'backfill_error',
      where: 'backfill_id > 0',
    },
    record: z.object({ id: z.coerce.string() }),
    concurrency: settings.concurrency,
    timeout: settings.callTimeoutMs,
    async each({ id }, { signal, idempotencyKey }) {
      try {
        const capture = await captureToDescribe(pool, id)
        if (!capture) throw new Permanent(`There is no capture ${id} any more.`)
        const { objectKey, profile } = capture
        if (!profile) throw new Permanent('The camera has no analysis profile. Give it one and try again.')
        const image = await store.get(objectKey, signal)
        const answer = await callModel(model, { image, profile, signal, idempotencyKey })
        const observations = parseAnswer(answer)
        const { model: name, usage } = answer
        await transaction((tx) => replaceObservations(tx, id, { observations, model: name, usage }))
        return { model: name, observations: observations.length }
      } catch (error) {
        throw callFailed(error, signal)
      }
    },
  })
}
