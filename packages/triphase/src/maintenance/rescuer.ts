import { cancelledOnRequest, storedError, TriphaseError } from '../errors.ts'
import type { Database } from '../store/database.ts'
import type { Peer } from '../store/heartbeat.ts'
import { rescueProcess } from '../store/rescue.ts'
import type { Telemetry } from '../telemetry.ts'

/** Takes a dead process's jobs back into their queues; returns the queues that have work now. */
export async function rescue(database: Database, telemetry: Telemetry, peer: Peer): Promise<string[]> {
  const error = new TriphaseError(
    'CRASHED_TOO_OFTEN',
    `The process that ran this job (pid ${peer.pid}) died. A job whose processes keep dying is taken to be the cause; look for memory, native code and process.exit in its task.`,
  )
  const rescued = await rescueProcess(
    database,
    peer,
    JSON.stringify({ ...storedError(error), stack: undefined }),
    cancelledOnRequest(),
  )
  if (!rescued) return []
  telemetry.emit('jobs:rescued', {
    processId: peer.id,
    again: rescued.again.map(({ id }) => id),
    discarded: rescued.discarded,
  })
  return [...new Set(rescued.again.map(({ queue }) => queue))]
}
