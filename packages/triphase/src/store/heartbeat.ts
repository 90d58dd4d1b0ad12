import type { Database } from './database.ts'

/** What a process says of itself when it starts. */
export interface ProcessIdentity {
  name: string
  host: string
  pid: number
  /** Boot and process-id namespace of the machine, where the system tells; processes with the same one see each other's ids. */
  machine: string | null
  /** When the process id was given out, in the machine's own terms: tells a process from a later one with the same id. */
  pidStarted: string | null
  /** How long others must see it silent before they take it for dead, in milliseconds. */
  deadAfterMs: number
  queues: readonly string[]
}

export interface Peer {
  id: string
  beat: string
  pid: number
  machine: string | null
  pidStarted: string | null
  /** How long it may be silent, by its own settings. */
  deadAfterMs: number
}

export interface QueueSettings {
  name: string
  paused: boolean
  concurrency: number | null
}

/** What a process learns from one heartbeat. */
export interface Beat {
  /** False: others took this process for dead, and its row is gone. */
  alive: boolean
  leads: boolean
  /** Running claims that somebody wants cancelled. */
  cancelled: { jobId: string; claimNo: number }[]
  /** Running claims that are no longer this process's. */
  lost: { jobId: string; claimNo: number }[]
  /** Jobs that were claimed in this process's name but never arrived there, and are available again. */
  strays: string[]
  queues: QueueSettings[]
  peers: Peer[]
  /** Of the process's queues, those with available jobs. */
  available: string[]
  /** Until the next scheduled or retryable job is due; negative when one is overdue; null when there is none. */
  nextDueMs: number | null
}

const REGISTER = /* sql */ `
INSERT INTO triphase.process (name, host, pid, machine, pid_started, queues, dead_after_ms)
VALUES ($1, $2, $3, $4, $5, $6::json, $7) RETURNING id::text`

// One statement a process and beat, whatever it runs. Each part reads few rows by an index: process_pkey,
// leader_pkey, job_executing (strays), cancel_request_pkey and job_pkey (once a running claim), job_available (once
// a queue), job_due (the first entry).
// A stray is a job whose claim's reply was lost: no running claim knows it, and a claim's reply never takes as long
// as $7; one that somebody has locked is left for a later beat, since whoever waits does not beat. An INSERT … ON CONFLICT
// takes the lease only when it is free, expired, ours, or of a process that is no more: the database's clock may have been
// set back, and a dead leader's lease last for hours.
const BEAT = /* sql */ `
WITH running AS (
  SELECT * FROM unnest($2::bigint[], $3::int[]) AS r(job_id, claim_no)
), beat AS (
  UPDATE triphase.process SET beat = beat + 1, beat_at = clock_timestamp(), stopping = $5
  WHERE id = $1 RETURNING id
), lease AS (
  INSERT INTO triphase.leader AS l (name, process_id, expires_at)
  SELECT 'maintenance', beat.id, clock_timestamp() + $6 * interval '1 millisecond' FROM beat
  WHERE NOT $5 AND NOT EXISTS (
    SELECT FROM triphase.leader o
    WHERE o.name = 'maintenance' AND o.process_id <> $1 AND o.expires_at >= clock_timestamp()
      AND EXISTS (SELECT FROM triphase.process p WHERE p.id = o.process_id))
  ON CONFLICT (name) DO UPDATE SET process_id = excluded.process_id, expires_at = excluded.expires_at
    WHERE l.process_id = excluded.process_id OR l.expires_at < clock_timestamp()
       OR NOT EXISTS (SELECT FROM triphase.process p WHERE p.id = l.process_id)
  RETURNING process_id
), stray AS (
  SELECT id FROM triphase.job
  WHERE $8 AND process_id = $1 AND state = 'executing'
    AND claimed_at < clock_timestamp() - $7 * interval '1 millisecond' AND NOT id = ANY ($2::bigint[])
  FOR UPDATE SKIP LOCKED
), strays AS (
  UPDATE triphase.job
  SET state = 'available', claim_no = claim_no + 1, attempt = attempt - 1, process_id = NULL, claimed_at = NULL,
      position = nextval('triphase.job_position')
  WHERE id = ANY (ARRAY(SELECT id FROM stray)) RETURNING id
)
SELECT
  EXISTS (SELECT FROM beat) AS alive,
  EXISTS (SELECT FROM lease) AS leads,
  (SELECT json_agg(json_build_object('jobId', r.job_id::text, 'claimNo', r.claim_no)) FROM running r
    WHERE EXISTS (SELECT FROM triphase.cancel_request c WHERE c.job_id = r.job_id)) AS cancelled,
  (SELECT json_agg(json_build_object('jobId', r.job_id::text, 'claimNo', r.claim_no)) FROM running r WHERE NOT EXISTS (
    SELECT FROM triphase.job j WHERE j.id = r.job_id AND j.claim_no = r.claim_no AND j.state = 'executing'
  )) AS lost,
  (SELECT json_agg(id::text) FROM strays) AS strays,
  (SELECT json_agg(json_build_object('name', name, 'paused', paused_at IS NOT NULL, 'concurrency', concurrency))
    FROM triphase.queue) AS queues,
  (SELECT json_agg(json_build_object(
      'id', id::text, 'beat', beat::text, 'pid', pid, 'machine', machine, 'pidStarted', pid_started,
      'deadAfterMs', dead_after_ms))
    FROM triphase.process WHERE id <> $1) AS peers,
  (SELECT json_agg(q) FROM unnest($4::text[]) AS q WHERE EXISTS (
    SELECT FROM triphase.job j WHERE j.queue = q AND j.state = 'available' AND j.crash_count < 2
  ) OR EXISTS (
    SELECT FROM triphase.job j WHERE j.queue = q AND j.state = 'available' AND j.crash_count >= 2
  )) AS available,
  (SELECT extract(epoch FROM run_at - clock_timestamp())::float8 * 1000 FROM triphase.job
    WHERE state IN ('scheduled', 'retryable') ORDER BY run_at LIMIT 1) AS next_due_ms`

// Whatever the process still holds goes back without burning an attempt (job_executing, process_pkey).
const DEREGISTER = /* sql */ `
WITH gone AS (
  DELETE FROM triphase.process WHERE id = $1
), lease AS (
  DELETE FROM triphase.leader WHERE process_id = $1
), held AS (
  SELECT id FROM triphase.job WHERE process_id = $1 AND state = 'executing' ORDER BY id FOR UPDATE
)
UPDATE triphase.job
SET state = 'available', claim_no = claim_no + 1, attempt = attempt - 1, process_id = NULL, claimed_at = NULL,
    position = nextval('triphase.job_position')
WHERE id = ANY (ARRAY(SELECT id FROM held)) RETURNING queue`

const PROBE = /* sql */ `
SELECT q AS queue FROM unnest($1::text[]) AS q WHERE EXISTS (
  SELECT FROM triphase.job j WHERE j.queue = q AND j.state = 'available' AND j.crash_count < 2
) OR EXISTS (
  SELECT FROM triphase.job j WHERE j.queue = q AND j.state = 'available' AND j.crash_count >= 2)`

/** Writes the process's row; returns its id. */
export async function registerProcess(database: Database, identity: ProcessIdentity): Promise<string> {
  const { name, host, pid, machine, pidStarted, queues, deadAfterMs } = identity
  const values = [name, host, pid, machine, pidStarted, JSON.stringify(queues), Math.ceil(deadAfterMs)]
  const [row] = await database.query<{ id: string }>(REGISTER, values)
  return (row as { id: string }).id
}

export interface BeatRequest {
  processId: string
  running: readonly { jobId: string; claimNo: number }[]
  queues: readonly string[]
  stopping: boolean
  leaseMs: number
  strayAfterMs: number
  /** Under an old snapshot job_executing keeps an entry of every job that the process ever ran: not to be read for nothing. */
  lookForStrays: boolean
}

/** Renews the process's heartbeat and returns everything that it must know. */
export async function beatOnce(database: Database, request: BeatRequest): Promise<Beat> {
  const [row] = await database.query<BeatRow>(BEAT, [
    request.processId,
    request.running.map((claim) => claim.jobId),
    request.running.map((claim) => claim.claimNo),
    request.queues,
    request.stopping,
    request.leaseMs,
    request.strayAfterMs,
    request.lookForStrays,
  ])
  return beatFrom(row as BeatRow)
}

interface BeatRow {
  alive: boolean
  leads: boolean
  cancelled: string | null
  lost: string | null
  strays: string | null
  queues: string | null
  peers: string | null
  available: string | null
  next_due_ms: number | null
}

function beatFrom(row: BeatRow): Beat {
  const list = <Item>(json: string | null): Item[] => (json === null ? [] : JSON.parse(json))
  return {
    alive: row.alive,
    leads: row.leads,
    cancelled: list(row.cancelled),
    lost: list(row.lost),
    strays: list(row.strays),
    queues: list(row.queues),
    peers: list(row.peers),
    available: list(row.available),
    nextDueMs: row.next_due_ms,
  }
}

/** Removes the process's row and hands back what it held; returns how many jobs that were. */
export async function deregisterProcess(database: Database, processId: string): Promise<string[]> {
  const rows = await database.query<{ queue: string }>(DEREGISTER, [processId])
  return rows.map(({ queue }) => queue)
}

/** Of these queues, those that have available jobs. */
export async function queuesWithWork(database: Database, queues: readonly string[]): Promise<string[]> {
  const rows = await database.query<{ queue: string }>(PROBE, [queues])
  return rows.map(({ queue }) => queue)
}
