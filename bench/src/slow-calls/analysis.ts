// The application's side of a staged job: what its two transactions do, the same for Triphase and for the floor.

export const ANALYSIS_TABLE = `
CREATE TABLE analysis (
  n integer PRIMARY KEY,
  status text NOT NULL DEFAULT 'processing',
  answer json
)`

/** Finds or creates. */
export const PREPARE = `
INSERT INTO analysis (n) VALUES ($1)
ON CONFLICT (n) DO UPDATE SET status = analysis.status RETURNING n, status`

export const COMPLETE = `UPDATE analysis SET status = 'completed', answer = $2 WHERE n = $1`

/** What the slow call answers. */
export interface Answer {
  n: number
  labels: string[]
}

export function answerTo(n: number): Answer {
  return { n, labels: ['cat', 'window'] }
}
