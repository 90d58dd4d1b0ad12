-- Triphase, the whole of its schema.
--
-- A job lives in `job` while there is something left to do with it, and moves to `job_history` in the statement that
-- finishes it. So `job` stays as small as the backlog, a job is in exactly one of the two, and history is dropped by
-- partitions instead of deleted row by row.
--
--   enqueue        -> available | scheduled
--   stage          scheduled | retryable -> available        (when run_at has come)
--   claim          available -> executing                    (claim_no + 1, attempt + 1)
--   ack            executing -> retryable | scheduled | available | history (completed, cancelled, discarded)
--   rescue         executing -> available | history (discarded)   (claim_no + 1: the dead claim's acks are refused)
--   cancel         scheduled | available | retryable -> history (cancelled); executing: a row in `cancel_request`
--
-- The fence: a claim is (id, claim_no). claim_no rises at every claim and every rescue and never falls; each
-- statement that a worker writes with names it, and does nothing when it no longer fits.
--
-- Lock order: rows of the application, then one `job` row; several `job` rows only in one statement in ascending id,
-- or with SKIP LOCKED; `job_unique` before `job` when enqueueing, after it when finishing (a finisher deletes only
-- the key of a job that it has already locked, and no enqueuer waits for a job row).
--
-- Text that comes from outside (inputs, results, answers, errors) is json, not jsonb: jsonb refuses \u0000 and lone
-- surrogates, and one such value would fail the batch that it is written with, for ever.

CREATE SEQUENCE triphase.job_id AS bigint;

-- A job's place in its queue, drawn anew each time it becomes available: a job that comes back stands at the end.
CREATE SEQUENCE triphase.job_position AS bigint;

CREATE TABLE triphase.job (
  id bigint PRIMARY KEY DEFAULT nextval('triphase.job_id'),
  position bigint NOT NULL DEFAULT nextval('triphase.job_position'),
  run_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  inserted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  claimed_at timestamptz,
  process_id bigint,
  claim_no integer NOT NULL DEFAULT 0,
  attempt integer NOT NULL DEFAULT 0,
  max_attempts integer NOT NULL,
  timeout_ms integer,
  priority smallint NOT NULL DEFAULT 2,
  crash_count smallint NOT NULL DEFAULT 0,
  max_crashes smallint NOT NULL DEFAULT 3,
  queue text NOT NULL,
  task text NOT NULL,
  state text NOT NULL,
  input json NOT NULL,
  tags text[],
  unique_key text,
  traceparent text,
  -- Kept for features that build on this table; the claim does not read them yet.
  task_version integer,
  weight integer,
  expires_at timestamptz,
  parent_id bigint,
  group_id bigint,
  concurrency_key text,
  tenant text,
  codec text,
  CONSTRAINT job_state CHECK (state IN ('scheduled', 'available', 'executing', 'retryable')),
  CONSTRAINT job_claimed_while_executing CHECK (
    (state = 'executing') = (process_id IS NOT NULL AND claimed_at IS NOT NULL)
  ),
  CONSTRAINT job_counts CHECK (attempt >= 0 AND max_attempts >= 1 AND max_crashes >= 1 AND crash_count >= 0),
  CONSTRAINT job_priority CHECK (priority BETWEEN 0 AND 3)
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Serves the claim: the queue's available jobs in order. Suspects (jobs that were running in two crashes) have an
-- index of their own, so that a queue full of them costs the others nothing.
CREATE INDEX job_available ON triphase.job (queue, priority, position)
  WHERE state = 'available' AND crash_count < 2;
CREATE INDEX job_suspect ON triphase.job (queue, priority, position)
  WHERE state = 'available' AND crash_count >= 2;
-- Serves the stager.
CREATE INDEX job_due ON triphase.job (run_at) WHERE state IN ('scheduled', 'retryable');
-- Serves rescue and the return of strays.
CREATE INDEX job_executing ON triphase.job (process_id) WHERE state = 'executing';

CREATE TABLE triphase.job_history (
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
  crash_count smallint NOT NULL,
  max_crashes smallint NOT NULL,
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
  codec text,
  CONSTRAINT job_history_state CHECK (state IN ('completed', 'cancelled', 'discarded'))
) PARTITION BY RANGE (finished_at);
CREATE INDEX job_history_id ON triphase.job_history (id);

-- One row per finished claim that is worth keeping: every failure and crash, and the ledger of each staged job.
CREATE TABLE triphase.job_attempt (
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
  error json,
  phases json,
  CONSTRAINT job_attempt_outcome CHECK (
    outcome IN ('completed', 'retried', 'snoozed', 'cancelled', 'discarded', 'crashed')
  )
) PARTITION BY RANGE (finished_at);
CREATE INDEX job_attempt_job ON triphase.job_attempt (job_id);

-- Unique keys. A key is taken while its job is live, and until expires_at where that is set.
CREATE TABLE triphase.job_unique (
  key text PRIMARY KEY,
  job_id bigint NOT NULL,
  expires_at timestamptz
);

-- What a staged job's call (or a step of it) returned, stored before anything can fail on its content. The first
-- writer wins, whatever its claim: an answer that was paid for is never thrown away.
CREATE TABLE triphase.answer (
  job_id bigint NOT NULL,
  stored_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  claim_no integer NOT NULL,
  step text NOT NULL,
  answer json NOT NULL,
  PRIMARY KEY (job_id, step)
);

CREATE TABLE triphase.cancel_request (
  job_id bigint PRIMARY KEY,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row per running engine. `beat` counts its heartbeats; nobody compares clocks.
CREATE TABLE triphase.process (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  beat bigint NOT NULL DEFAULT 0,
  pid integer NOT NULL,
  -- How long it may be silent, in milliseconds: processes with other settings, as a rolling deploy has them side by side,
  -- must not take it for dead sooner.
  dead_after_ms integer NOT NULL,
  stopping boolean NOT NULL DEFAULT false,
  name text NOT NULL,
  host text NOT NULL,
  machine text,
  pid_started text,
  queues json NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE triphase.queue (
  name text PRIMARY KEY,
  paused_at timestamptz,
  concurrency integer,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT queue_concurrency CHECK (concurrency >= 0)
);

-- Leases for what must happen once. expires_at is compared with the database's own clock only, and everything that
-- a leader does is harmless when two do it.
CREATE TABLE triphase.leader (
  name text PRIMARY KEY,
  process_id bigint NOT NULL,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
