import type { RunRow, StoredRunState } from '../store/sweep-run.ts'

/** State of a sweep's run. */
export type RunState = StoredRunState | 'interrupted' | 'pausing' | 'completing'

interface Arrow {
  readonly from: readonly StoredRunState[]
  readonly to: StoredRunState
}

/**
 * Every change of a stored state. A statement that follows an arrow names its `from`, so what has changed meanwhile is
 * not changed again; whoever was late finds the run where somebody else has put it.
 */
export const ARROWS: Readonly<Record<'begin' | 'pause' | 'resume' | 'complete' | 'cancel' | 'fail', Arrow>> =
  {
    /** The steward has counted the pending records. */
    begin: { from: ['planned'], to: 'running' },
    /** Somebody asked for it; a breaker and a budget do the same inside `sweep_beat`. */
    pause: { from: ['planned', 'running'], to: 'paused' },
    /** Back to `planned` when it was paused before it began. */
    resume: { from: ['paused'], to: 'running' },
    /** A pass found no pending record. The hook's job is written in the same statement. */
    complete: { from: ['running'], to: 'completed' },
    /** Somebody asked for it. Calls under way are marked, none is begun. */
    cancel: { from: ['planned', 'running', 'paused'], to: 'cancelled' },
    /** The table does not fit any more, or refuses marks: no record could be blamed. */
    fail: { from: ['planned', 'running'], to: 'failed' },
  }

/** States in which a run is over; the next `run()` begins another. */
export const FINAL_STATES: readonly StoredRunState[] = ['completed', 'cancelled', 'failed']

type Alive = Pick<RunRow, 'state' | 'slots' | 'hasSteward' | 'hasProcess' | 'hookWaits'>

/**
 * The state as it is shown. What depends on somebody being alive is read off the jobs that are alive: when they die the
 * engine rescues them or they are gone, and the shown state follows.
 */
export function shownState(run: Alive): RunState {
  switch (run.state) {
    case 'planned':
    case 'running':
      // A steward whose process died is rescued; with no process on its queue nobody would.
      return run.hasSteward && run.hasProcess ? run.state : 'interrupted'
    case 'paused':
      // Slots count while their claims live, so the last of them ends this by itself.
      return run.slots > 0 ? 'pausing' : 'paused'
    case 'completed':
      return run.hookWaits ? 'completing' : 'completed'
    default:
      return run.state
  }
}
