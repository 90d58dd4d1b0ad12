import type pg from 'pg'
import type { Observation } from './models/answer.ts'
import type { AnalysisProfile, TokenUsage } from './models/call.ts'

/** Anything that runs a statement: the pool, or a client with a transaction open. */
type Connection = Pick<pg.ClientBase, 'query'>

/** An image to be known: what its file says of it. */
export interface NewCapture {
  readonly cameraId: string
  readonly contentHash: string
  readonly objectKey: string
  readonly fileName: string
  readonly bytes: number
}

/** How far an analysis is. */
export type AnalysisStatus = 'processing' | 'completed' | 'failed'

/** A capture as the database knows it, with the state of its analysis; null: none was begun. */
export interface KnownCapture {
  readonly id: string
  readonly jobId: string | null
  readonly objectKey: string
  readonly status: AnalysisStatus | null
}

/** Why an analysis failed: a stable word to count by, and a sentence for people. */
export interface AnalysisError {
  readonly code: string
  readonly message: string
}

/** The camera of that name, made when there is none; an existing one keeps its profile. */
export async function findOrCreateCamera(
  connection: Connection,
  name: string,
  profile: AnalysisProfile,
): Promise<string> {
  const { rows } = await connection.query<{ id: string }>(
    `INSERT INTO scout.camera (name, profile) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id`,
    [name, profile],
  )
  return (rows[0] as { id: string }).id
}

interface KnownCaptureRow {
  id: string
  job_id: string | null
  object_key: string
  status: AnalysisStatus | null
}

/** The capture with this content; null when there is none. */
export async function findCapture(connection: Connection, hash: string): Promise<KnownCapture | null> {
  const { rows } = await connection.query<KnownCaptureRow>(
    `SELECT capture.id, capture.job_id, capture.object_key, analysis.status
     FROM scout.capture LEFT JOIN scout.analysis ON analysis.capture_id = capture.id
     WHERE capture.content_hash = $1`,
    [hash],
  )
  return rows[0] ? knownCapture(rows[0]) : null
}

/** The capture with this content, written when there is none. Its row is locked until the transaction ends. */
export async function findOrCreateCapture(tx: Connection, capture: NewCapture): Promise<KnownCapture> {
  const { rows } = await tx.query<KnownCaptureRow>(
    `WITH known AS (
       INSERT INTO scout.capture (camera_id, content_hash, object_key, file_name, bytes)
       VALUES ($1, $2, $3, $4, $5)
       ON CONFLICT (content_hash) DO UPDATE SET content_hash = excluded.content_hash
       RETURNING id, job_id, object_key
     )
     SELECT known.id, known.job_id, known.object_key, analysis.status
     FROM known LEFT JOIN scout.analysis ON analysis.capture_id = known.id`,
    [capture.cameraId, capture.contentHash, capture.objectKey, capture.fileName, capture.bytes],
  )
  return knownCapture(rows[0]!)
}

function knownCapture({ id, job_id: jobId, object_key: objectKey, status }: KnownCaptureRow): KnownCapture {
  return { id, jobId, objectKey, status }
}

/** Notes which job analyses a capture, and that a failed analysis is being tried again. */
export async function assignJob(tx: Connection, captureId: string, jobId: string): Promise<void> {
  await tx.query('UPDATE scout.capture SET job_id = $2 WHERE id = $1', [captureId, jobId])
  await tx.query(
    `UPDATE scout.analysis SET status = 'processing', error_code = NULL, error = NULL, finished_at = NULL
     WHERE capture_id = $1 AND status = 'failed'`,
    [captureId],
  )
}

/** What phase one finds: everything that the call needs, and whether there is anything to do. */
export interface BegunAnalysis {
  readonly id: string
  readonly completed: boolean
  readonly objectKey: string
  readonly profile: AnalysisProfile | null
}

/** Locks the capture and finds or creates its analysis; null when there is no such capture. */
export async function beginAnalysis(tx: Connection, captureId: string): Promise<BegunAnalysis | null> {
  const { rows: captures } = await tx.query<{ object_key: string; profile: AnalysisProfile | null }>(
    `SELECT capture.object_key, camera.profile
     FROM scout.capture JOIN scout.camera ON camera.id = capture.camera_id
     WHERE capture.id = $1 FOR UPDATE OF capture`,
    [captureId],
  )
  const capture = captures[0]
  if (!capture) return null
  const { rows } = await tx.query<{ id: string; status: string }>(
    `INSERT INTO scout.analysis (capture_id, status) VALUES ($1, 'processing')
     ON CONFLICT (capture_id) DO UPDATE
     SET status = CASE WHEN analysis.status = 'completed' THEN 'completed' ELSE 'processing' END,
         finished_at = CASE WHEN analysis.status = 'completed' THEN analysis.finished_at END,
         error_code = NULL, error = NULL
     RETURNING id, status`,
    [captureId],
  )
  const { id, status } = rows[0] as (typeof rows)[number]
  return { id, completed: status === 'completed', objectKey: capture.object_key, profile: capture.profile }
}

/** What a capture's description begins with: where its image is, and what its camera wants to know now. */
export interface CaptureToDescribe {
  readonly objectKey: string
  readonly profile: AnalysisProfile | null
}

/** Null when there is no such capture. */
export async function captureToDescribe(
  connection: Connection,
  captureId: string,
): Promise<CaptureToDescribe | null> {
  const { rows } = await connection.query<{ object_key: string; profile: AnalysisProfile | null }>(
    `SELECT capture.object_key, camera.profile
     FROM scout.capture JOIN scout.camera ON camera.id = capture.camera_id WHERE capture.id = $1`,
    [captureId],
  )
  return rows[0] ? { objectKey: rows[0].object_key, profile: rows[0].profile } : null
}

/** Puts new observations in the place of those that a capture has; under a lock on the capture, as an analysis begins. */
export async function replaceObservations(
  tx: Connection,
  captureId: string,
  result: Parameters<typeof completeAnalysis>[2],
): Promise<void> {
  const analysis = await beginAnalysis(tx, captureId)
  if (!analysis) return
  await tx.query('DELETE FROM scout.observation WHERE analysis_id = $1', [analysis.id])
  await completeAnalysis(tx, analysis.id, result)
}

/** Writes what was observed and completes the analysis. */
export async function completeAnalysis(
  tx: Connection,
  analysisId: string,
  result: { observations: readonly Observation[]; model: string; usage: TokenUsage | null },
): Promise<void> {
  await tx.query(
    `INSERT INTO scout.observation (analysis_id, position, label, confidence, text, box)
     SELECT $1, o.position, o.label, o.confidence, o.text, o.box
     FROM unnest($2::int[], $3::text[], $4::real[], $5::text[], $6::jsonb[])
       AS o(position, label, confidence, text, box)`,
    [
      analysisId,
      result.observations.map((_observation, index) => index),
      result.observations.map(({ label }) => label),
      result.observations.map(({ confidence }) => confidence),
      result.observations.map(({ text }) => text),
      result.observations.map(({ box }) => box && JSON.stringify(box)),
    ],
  )
  await tx.query(
    `UPDATE scout.analysis
     SET status = 'completed', finished_at = now(), model = $2, usage = $3, error_code = NULL, error = NULL
     WHERE id = $1`,
    [analysisId, result.model, result.usage],
  )
}

/** Marks a capture's analysis as failed, unless it is completed. */
export async function failAnalysis(
  connection: Connection,
  captureId: string,
  { code, message }: AnalysisError,
): Promise<void> {
  await connection.query(
    `INSERT INTO scout.analysis (capture_id, status, finished_at, error_code, error)
     VALUES ($1, 'failed', now(), $2, $3)
     ON CONFLICT (capture_id) DO UPDATE
     SET status = 'failed', finished_at = now(), error_code = excluded.error_code, error = excluded.error
     WHERE analysis.status <> 'completed'`,
    [captureId, code, message],
  )
}

/** How far a capture is. */
export interface CaptureState {
  readonly captureId: string
  readonly jobId: string | null
  readonly status: AnalysisStatus
}

/** The state of each of these captures. */
export async function captureStates(
  connection: Connection,
  captureIds: readonly string[],
): Promise<CaptureState[]> {
  const { rows } = await connection.query<{ id: string; job_id: string | null; status: AnalysisStatus }>(
    `SELECT capture.id, capture.job_id, coalesce(analysis.status, 'processing') AS status
     FROM scout.capture LEFT JOIN scout.analysis ON analysis.capture_id = capture.id
     WHERE capture.id = ANY ($1::bigint[])`,
    [captureIds],
  )
  return rows.map(({ id, job_id: jobId, status }) => ({ captureId: id, jobId, status }))
}

/** What is known of a capture in the end. */
export interface CaptureResult {
  readonly captureId: string
  readonly status: AnalysisStatus
  readonly error: AnalysisError | null
  /** The most confident first. */
  readonly observations: readonly { label: string; confidence: number | null; text: string | null }[]
}

/** What is known of these captures now. */
export async function captureResults(
  connection: Connection,
  captureIds: readonly string[],
): Promise<CaptureResult[]> {
  const { rows } = await connection.query<{
    id: string
    status: AnalysisStatus
    error_code: string | null
    error: string | null
    observations: CaptureResult['observations'] | null
  }>(
    `SELECT capture.id, coalesce(analysis.status, 'processing') AS status, analysis.error_code, analysis.error,
            (SELECT json_agg(json_build_object('label', label, 'confidence', confidence, 'text', text)
                             ORDER BY confidence DESC NULLS LAST, position)
             FROM scout.observation WHERE analysis_id = analysis.id) AS observations
     FROM scout.capture LEFT JOIN scout.analysis ON analysis.capture_id = capture.id
     WHERE capture.id = ANY ($1::bigint[])`,
    [captureIds],
  )
  return rows.map(({ id, status, error_code: code, error: message, observations }) => ({
    captureId: id,
    status,
    error: message === null ? null : { code: code ?? 'FAILED', message },
    observations: observations ?? [],
  }))
}
