// What the floors work on: as little as a queue needs that hands out jobs in order, survives a crash and keeps the same
// history as Triphase, column for column. One index for the claim, one for the id, one for the history. Floors name
// their statements, so that they are planned once a connection: the least that it can cost, though not behind a pooler.
export const FLOOR_TABLES = `
CREATE TABLE job (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  inserted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  claimed_at timestamptz,
  process_id bigint,
  claim_no integer NOT NULL DEFAULT 0,
  attempt integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL DEFAULT 10,
  priority smallint NOT NULL DEFAULT 2,
  queue text NOT NULL,
  task text NOT NULL,
  state text NOT NULL DEFAULT 'available',
  input json NOT NULL
);
CREATE INDEX job_available ON job (queue, priority, id) WHERE state = 'available';

CREATE TABLE job_history (
  id bigint NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  run_at timestamptz NOT NULL,
  inserted_at timestamptz NOT NULL,
  claimed_at timestamptz,
  process_id bigint,
  claim_no integer NOT NULL,
  attempt integer NOT NULL,
  max_attempts integer NOT NULL,
  timeout_ms integer,
  priority smallint NOT NULL,
  crash_count smallint NOT NULL DEFAULT 0,
  max_crashes smallint NOT NULL DEFAULT 3,
  queue text NOT NULL,
  task text NOT NULL,
  state text NOT NULL,
  input json NOT NULL,
  result json,
  error json,
  tags text[],
  unique_key text,
  traceparent text,
  task_version integer,
  weight integer,
  parent_id bigint,
  group_id bigint,
  concurrency_key text,
  tenant text,
  codec text
);
CREATE INDEX job_history_id ON job_history (id)`

/** Jobs 0, 1, 2, … of the floor, available. */
export const FILL_FLOOR = `
INSERT INTO job (queue, task, input)
SELECT 'default', 'no-op', json_build_object('n', n) FROM generate_series(0, $1::int - 1) AS n ORDER BY n`

export const CLAIM = `
UPDATE job
SET state = 'executing', claim_no = claim_no + 1, attempt = attempt + 1, process_id = 1,
    claimed_at = clock_timestamp()
WHERE id = ANY (ARRAY(
  SELECT id FROM job WHERE queue = $1 AND state = 'available'
  ORDER BY priority, id LIMIT $2 FOR UPDATE SKIP LOCKED
))
RETURNING id, input`

export const FINISH_BY_DELETE = 'DELETE FROM job WHERE id = ANY ($1::bigint[])'

export const FINISH_WITH_HISTORY = `
WITH gone AS (DELETE FROM job WHERE id = ANY ($1::bigint[]) RETURNING *)
INSERT INTO job_history (
  id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, priority, queue, task, state,
  input, result)
SELECT id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, priority, queue, task,
       'completed', input, 'null'
FROM gone`

/** What the three transactions of a staged job write besides. */
export const STAGED_FLOOR_TABLES = `
CREATE TABLE answer (
  job_id bigint NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  claim_no integer NOT NULL,
  step text NOT NULL,
  answer json NOT NULL,
  PRIMARY KEY (job_id, step)
);
CREATE TABLE job_attempt (
  job_id bigint NOT NULL,
  finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz,
  process_id bigint,
  claim_no integer NOT NULL,
  attempt integer NOT NULL,
  checkouts integer,
  wait_ms real,
  hold_ms real,
  longest_hold_ms real,
  queue text NOT NULL,
  task text NOT NULL,
  outcome text NOT NULL,
  phases json
);
CREATE INDEX job_attempt_job ON job_attempt (job_id)`

export const CLAIM_ALL = `
UPDATE job SET state = 'executing', claim_no = 1, attempt = 1, process_id = 1, claimed_at = clock_timestamp()`

export const STORE_ANSWER = `INSERT INTO answer (job_id, claim_no, step, answer) VALUES ($1, 1, 'call', $2)`

export const FINISH_STAGED = `
WITH gone AS (
  DELETE FROM job WHERE id = $1 RETURNING *
), answered AS (
  DELETE FROM answer WHERE job_id = $1
), kept AS (
  INSERT INTO job_attempt (
    job_id, started_at, process_id, claim_no, attempt, checkouts, wait_ms, hold_ms, longest_hold_ms, queue, task,
    outcome, phases)
  SELECT id, claimed_at, process_id, claim_no, attempt, 2, 0, 1, 1, queue, task, 'completed', $2::json FROM gone
)
INSERT INTO job_history (
  id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, priority, queue, task, state,
  input, result)
SELECT id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, priority, queue, task,
       'completed', input, 'null'
FROM gone`
