import { storedError, TriphaseError } from '../errors.ts'
import { settleCancelRequests } from '../store/cancel.ts'
import type { Database } from '../store/database.ts'

/** Cancels the jobs that went back to waiting before the process that ran them had heard of the request. */
export function settleCancels(database: Database): Promise<void> {
  const reason = new TriphaseError('CANCELLED', 'cancelled on request')
  return settleCancelRequests(database, JSON.stringify({ ...storedError(reason), stack: undefined }))
}
