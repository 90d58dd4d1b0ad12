-- What the migrations make of an empty database, read from the catalogs of PostgreSQL 18: to be compared, not to be run.
-- `npm run write-schema` writes it. Partitions by time are left out: the clock makes them, not a migration.

CREATE SEQUENCE triphase.job_id AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1;

CREATE SEQUENCE triphase.job_position AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1;

CREATE SEQUENCE triphase.process_id_seq AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY triphase.process.id;

CREATE SEQUENCE triphase.sweep_page_id_seq AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY triphase.sweep_page.id;

CREATE SEQUENCE triphase.sweep_run_id_seq AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY triphase.sweep_run.id;

CREATE TABLE triphase.answer (
  job_id bigint NOT NULL,
  stored_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  claim_no integer NOT NULL,
  step text NOT NULL,
  answer json NOT NULL,
  CONSTRAINT answer_pkey PRIMARY KEY (job_id, step)
);

CREATE TABLE triphase.cancel_request (
  job_id bigint NOT NULL,
  requested_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT cancel_request_pkey PRIMARY KEY (job_id)
);

CREATE TABLE triphase.job (
  id bigint NOT NULL DEFAULT nextval('triphase.job_id'::regclass),
  "position" bigint NOT NULL DEFAULT nextval('triphase.job_position'::regclass),
  run_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  inserted_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  claimed_at timestamp with time zone,
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
  task_version integer,
  weight integer,
  expires_at timestamp with time zone,
  parent_id bigint,
  group_id bigint,
  concurrency_key text,
  tenant text,
  codec text,
  CONSTRAINT job_pkey PRIMARY KEY (id),
  CONSTRAINT job_claimed_while_executing CHECK (((state = 'executing'::text) = ((process_id IS NOT NULL) AND (claimed_at IS NOT NULL)))),
  CONSTRAINT job_counts CHECK (((attempt >= 0) AND (max_attempts >= 1) AND (max_crashes >= 1) AND (crash_count >= 0))),
  CONSTRAINT job_priority CHECK (((priority >= 0) AND (priority <= 3))),
  CONSTRAINT job_state CHECK ((state = ANY (ARRAY['scheduled'::text, 'available'::text, 'executing'::text, 'retryable'::text])))
) WITH (autovacuum_vacuum_scale_factor=0.01, autovacuum_vacuum_cost_delay=0);

CREATE TABLE triphase.job_attempt (
  job_id bigint NOT NULL,
  finished_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  started_at timestamp with time zone,
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
  CONSTRAINT job_attempt_outcome CHECK ((outcome = ANY (ARRAY['completed'::text, 'retried'::text, 'snoozed'::text, 'cancelled'::text, 'discarded'::text, 'crashed'::text])))
) PARTITION BY RANGE (finished_at);

CREATE TABLE triphase.job_history (
  id bigint NOT NULL,
  finished_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  run_at timestamp with time zone NOT NULL,
  inserted_at timestamp with time zone NOT NULL,
  claimed_at timestamp with time zone,
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
  CONSTRAINT job_history_state CHECK ((state = ANY (ARRAY['completed'::text, 'cancelled'::text, 'discarded'::text])))
) PARTITION BY RANGE (finished_at);

CREATE TABLE triphase.job_unique (
  key text NOT NULL,
  job_id bigint NOT NULL,
  expires_at timestamp with time zone,
  CONSTRAINT job_unique_pkey PRIMARY KEY (key)
);

CREATE TABLE triphase.leader (
  name text NOT NULL,
  process_id bigint NOT NULL,
  expires_at timestamp with time zone NOT NULL,
  CONSTRAINT leader_pkey PRIMARY KEY (name)
) WITH (fillfactor=50);

CREATE TABLE triphase.migration (
  version integer NOT NULL,
  name text NOT NULL,
  min_compatible integer NOT NULL,
  applied_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT migration_pkey PRIMARY KEY (version)
);

CREATE TABLE triphase.process (
  id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  started_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  beat_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  beat bigint NOT NULL DEFAULT 0,
  pid integer NOT NULL,
  dead_after_ms integer NOT NULL,
  stopping boolean NOT NULL DEFAULT false,
  name text NOT NULL,
  host text NOT NULL,
  machine text,
  pid_started text,
  queues json NOT NULL,
  CONSTRAINT process_pkey PRIMARY KEY (id)
) WITH (fillfactor=50);

CREATE TABLE triphase.queue (
  name text NOT NULL,
  paused_at timestamp with time zone,
  concurrency integer,
  changed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT queue_pkey PRIMARY KEY (name),
  CONSTRAINT queue_concurrency CHECK ((concurrency >= 0))
);

CREATE TABLE triphase.sweep_page (
  id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  run_id bigint NOT NULL,
  job_id bigint NOT NULL,
  claim_no integer NOT NULL DEFAULT 0,
  wanted integer NOT NULL DEFAULT 0,
  slots integer NOT NULL DEFAULT 0,
  done integer NOT NULL DEFAULT 0,
  errors integer NOT NULL DEFAULT 0,
  calls integer NOT NULL DEFAULT 0,
  calls_granted integer NOT NULL DEFAULT 0,
  spent double precision NOT NULL DEFAULT 0,
  crashes_seen integer NOT NULL DEFAULT 0,
  cautious integer NOT NULL DEFAULT 0,
  drained boolean NOT NULL DEFAULT false,
  from_key text,
  to_key text NOT NULL,
  calling text,
  CONSTRAINT sweep_page_pkey PRIMARY KEY (id)
) WITH (fillfactor=50);

CREATE TABLE triphase.sweep_record_try (
  page_id bigint NOT NULL,
  due_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  tries integer NOT NULL DEFAULT 0,
  crashes integer NOT NULL DEFAULT 0,
  record_key text NOT NULL,
  error text,
  CONSTRAINT sweep_record_try_pkey PRIMARY KEY (page_id, record_key)
);

CREATE TABLE triphase.sweep_run (
  id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  created_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
  started_at timestamp with time zone,
  finished_at timestamp with time zone,
  running_since timestamp with time zone,
  active_ms double precision NOT NULL DEFAULT 0,
  slow_until timestamp with time zone,
  total bigint,
  done bigint NOT NULL DEFAULT 0,
  errors bigint NOT NULL DEFAULT 0,
  calls bigint NOT NULL DEFAULT 0,
  spent double precision NOT NULL DEFAULT 0,
  call_budget bigint,
  spend_budget double precision,
  rate double precision,
  steward_job bigint NOT NULL,
  hook_job bigint,
  concurrency integer NOT NULL,
  pass integer NOT NULL DEFAULT 1,
  pass_pages integer NOT NULL DEFAULT 0,
  feed_no integer NOT NULL DEFAULT 0,
  failures_in_row integer NOT NULL DEFAULT 0,
  window_calls integer NOT NULL DEFAULT 0,
  window_failures integer NOT NULL DEFAULT 0,
  fed boolean NOT NULL DEFAULT false,
  total_estimated boolean NOT NULL DEFAULT false,
  sweep text NOT NULL,
  queue text NOT NULL,
  state text NOT NULL DEFAULT 'planned'::text,
  reason text,
  cursor text,
  samples json,
  CONSTRAINT sweep_run_pkey PRIMARY KEY (id),
  CONSTRAINT sweep_run_finished CHECK (((state = ANY (ARRAY['completed'::text, 'cancelled'::text, 'failed'::text])) = (finished_at IS NOT NULL))),
  CONSTRAINT sweep_run_limits CHECK (((concurrency >= 1) AND (rate > (0)::double precision) AND (call_budget >= 0) AND (spend_budget >= (0)::double precision))),
  CONSTRAINT sweep_run_since CHECK (((state = 'running'::text) = (running_since IS NOT NULL))),
  CONSTRAINT sweep_run_state CHECK ((state = ANY (ARRAY['planned'::text, 'running'::text, 'paused'::text, 'completed'::text, 'cancelled'::text, 'failed'::text])))
) WITH (fillfactor=50);

CREATE UNIQUE INDEX answer_pkey ON triphase.answer USING btree (job_id, step);

CREATE UNIQUE INDEX cancel_request_pkey ON triphase.cancel_request USING btree (job_id);

CREATE INDEX job_available ON triphase.job USING btree (queue, priority, "position") WHERE ((state = 'available'::text) AND (crash_count < 2));

CREATE INDEX job_due ON triphase.job USING btree (run_at) WHERE (state = ANY (ARRAY['scheduled'::text, 'retryable'::text]));

CREATE INDEX job_executing ON triphase.job USING btree (process_id) WHERE (state = 'executing'::text);

CREATE UNIQUE INDEX job_pkey ON triphase.job USING btree (id);

CREATE INDEX job_suspect ON triphase.job USING btree (queue, priority, "position") WHERE ((state = 'available'::text) AND (crash_count >= 2));

CREATE INDEX job_attempt_job ON ONLY triphase.job_attempt USING btree (job_id);

CREATE INDEX job_history_id ON ONLY triphase.job_history USING btree (id);

CREATE UNIQUE INDEX job_unique_pkey ON triphase.job_unique USING btree (key);

CREATE UNIQUE INDEX leader_pkey ON triphase.leader USING btree (name);

CREATE UNIQUE INDEX migration_pkey ON triphase.migration USING btree (version);

CREATE UNIQUE INDEX process_pkey ON triphase.process USING btree (id);

CREATE UNIQUE INDEX queue_pkey ON triphase.queue USING btree (name);

CREATE UNIQUE INDEX sweep_page_pkey ON triphase.sweep_page USING btree (id);

CREATE INDEX sweep_page_run ON triphase.sweep_page USING btree (run_id);

CREATE UNIQUE INDEX sweep_record_try_pkey ON triphase.sweep_record_try USING btree (page_id, record_key);

CREATE UNIQUE INDEX sweep_run_open ON triphase.sweep_run USING btree (sweep) WHERE (state = ANY (ARRAY['planned'::text, 'running'::text, 'paused'::text]));

CREATE UNIQUE INDEX sweep_run_pkey ON triphase.sweep_run USING btree (id);

CREATE INDEX sweep_run_sweep ON triphase.sweep_run USING btree (sweep, id);

CREATE OR REPLACE FUNCTION triphase.claim_jobs(of_queue text, for_process bigint, most integer, most_suspects integer, after_urgent bigint, after_high bigint, after_normal bigint, after_low bigint)
 RETURNS TABLE(id text, claim_no integer, attempt integer, max_attempts integer, crash_count smallint, timeout_ms integer, queue text, task text, input text, tags text[], inserted_at timestamp with time zone, claimed_at timestamp with time zone, traceparent text, priority smallint, "position" text, oldest_open text, horizon text)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_sort TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
#variable_conflict use_column
BEGIN RETURN QUERY
UPDATE triphase.job AS j
SET state = 'executing', claim_no = claim_no + 1, attempt = attempt + 1, process_id = for_process,
    claimed_at = clock_timestamp()
WHERE EXISTS (SELECT FROM triphase.process WHERE id = for_process) AND id = ANY (ARRAY(
  SELECT id FROM (
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = of_queue AND state = 'available' AND crash_count >= 2
      ORDER BY priority, position LIMIT most_suspects FOR UPDATE SKIP LOCKED
    ) suspect
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = of_queue AND state = 'available' AND crash_count < 2 AND priority = 0 AND position > after_urgent
      ORDER BY position LIMIT most FOR UPDATE SKIP LOCKED
    ) urgent
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = of_queue AND state = 'available' AND crash_count < 2 AND priority = 1 AND position > after_high
      ORDER BY position LIMIT most FOR UPDATE SKIP LOCKED
    ) high
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = of_queue AND state = 'available' AND crash_count < 2 AND priority = 2 AND position > after_normal
      ORDER BY position LIMIT most FOR UPDATE SKIP LOCKED
    ) normal
    UNION ALL
    SELECT id FROM (
      SELECT id FROM triphase.job
      WHERE queue = of_queue AND state = 'available' AND crash_count < 2 AND priority = 3 AND position > after_low
      ORDER BY position LIMIT most FOR UPDATE SKIP LOCKED
    ) low
  ) candidate LIMIT most
))
RETURNING j.id::text, claim_no, attempt, max_attempts, crash_count, timeout_ms, queue, task, input::text, tags,
          inserted_at, claimed_at, traceparent, priority, position::text,
          (SELECT pg_snapshot_xmin(pg_current_snapshot())::text),
          (SELECT pg_snapshot_xmax(pg_current_snapshot())::text);
END $function$;

CREATE OR REPLACE FUNCTION triphase.finish_jobs(job_ids bigint[], claim_nos integer[], states text[], results json[], errors json[], outcomes text[], checkout_counts integer[], waits_ms real[], holds_ms real[], longest_holds_ms real[], phase_times json[], dropped_steps text[], keep_completed boolean)
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
#variable_conflict use_column
DECLARE acked bigint[];
BEGIN
WITH ack AS (
  SELECT * FROM unnest(
    job_ids, claim_nos, states, results, errors, outcomes, checkout_counts, waits_ms, holds_ms, longest_holds_ms,
    phase_times, dropped_steps
  ) AS t(job_id, claim_no, state, result, error, outcome, checkouts, wait_ms, hold_ms, longest_hold_ms, phases,
         drop_steps)
), gone AS (
  DELETE FROM triphase.job
  WHERE id = ANY (job_ids)
    AND CASE WHEN state = 'executing' AND (id, claim_no) IN (SELECT a.job_id, a.claim_no FROM ack a)
        THEN true ELSE false END
  RETURNING *
), finished AS (
  INSERT INTO triphase.job_history (
    id, run_at, inserted_at, claimed_at, process_id, claim_no, attempt, max_attempts, timeout_ms, priority,
    crash_count, max_crashes, queue, task, state, input, result, error, tags, unique_key, traceparent,
    task_version, weight, parent_id, group_id, concurrency_key, tenant, codec)
  SELECT g.id, g.run_at, g.inserted_at, g.claimed_at, g.process_id, g.claim_no, g.attempt, g.max_attempts,
         g.timeout_ms, g.priority, g.crash_count, g.max_crashes, g.queue, g.task, a.state, g.input, a.result,
         a.error, g.tags, g.unique_key, g.traceparent, g.task_version, g.weight, g.parent_id, g.group_id,
         g.concurrency_key, g.tenant, g.codec
  FROM gone g JOIN ack a ON a.job_id = g.id WHERE keep_completed OR a.state <> 'completed'
), kept AS (
  INSERT INTO triphase.job_attempt (
    job_id, started_at, process_id, claim_no, attempt, checkouts, wait_ms, hold_ms, longest_hold_ms, queue, task,
    outcome, error, phases)
  SELECT g.id, g.claimed_at, g.process_id, g.claim_no, g.attempt, a.checkouts, a.wait_ms, a.hold_ms,
         a.longest_hold_ms, g.queue, g.task, a.outcome, a.error, a.phases
  FROM gone g JOIN ack a ON a.job_id = g.id
  WHERE a.outcome IS NOT NULL AND (keep_completed OR a.state <> 'completed')
), freed AS (
  DELETE FROM triphase.job_unique
  WHERE key = ANY (ARRAY(SELECT unique_key FROM gone WHERE unique_key IS NOT NULL))
    AND job_id = ANY (job_ids) AND coalesce(expires_at <= clock_timestamp(), true)
), answered AS (
  DELETE FROM triphase.answer x
  WHERE x.job_id = ANY (ARRAY(
    SELECT g.id FROM gone g JOIN ack a ON a.job_id = g.id
    WHERE (a.state = 'completed' AND a.outcome IS NOT NULL) OR a.drop_steps IS NOT NULL))
    AND EXISTS (
      SELECT FROM ack a WHERE a.job_id = x.job_id
        AND (a.state = 'completed' OR a.drop_steps = '{}' OR x.step = ANY (a.drop_steps::text[])))
)
SELECT array_agg(id) INTO acked FROM gone;
RETURN acked;
END $function$;

CREATE OR REPLACE FUNCTION triphase.insert_alike_jobs(of_task text, in_queue text, with_priority smallint, attempts integer, crashes smallint, timeout integer, inputs json[], delay_ms double precision, due_at timestamp with time zone, labels text[], trace text)
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
#variable_conflict use_column
DECLARE new_ids bigint[];
BEGIN
WITH new AS (
  INSERT INTO triphase.job
    (task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent)
  SELECT of_task, in_queue,
         CASE WHEN coalesce(due_at > clock_timestamp(), delay_ms > 0) THEN 'scheduled' ELSE 'available' END, with_priority,
         coalesce(due_at, clock_timestamp() + delay_ms * interval '1 millisecond'), attempts, crashes, timeout, given,
         labels, trace
  FROM unnest(inputs) WITH ORDINALITY AS t(given, n) ORDER BY n
  RETURNING id
)
SELECT array_agg(id) INTO new_ids FROM new;
RETURN new_ids;
END $function$;

CREATE OR REPLACE FUNCTION triphase.insert_job(of_task text, in_queue text, with_priority smallint, attempts integer, crashes smallint, timeout integer, given json, delay_ms double precision, due_at timestamp with time zone, labels text[], trace text)
 RETURNS bigint
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
DECLARE new_id bigint;
BEGIN
INSERT INTO triphase.job
  (task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent)
VALUES (
  of_task, in_queue,
  CASE WHEN coalesce(due_at > clock_timestamp(), delay_ms > 0) THEN 'scheduled' ELSE 'available' END, with_priority,
  coalesce(due_at, clock_timestamp() + delay_ms * interval '1 millisecond'), attempts, crashes, timeout, given, labels,
  trace)
RETURNING id INTO new_id;
RETURN new_id;
END $function$;

CREATE OR REPLACE FUNCTION triphase.insert_jobs(tasks text[], queues text[], priorities smallint[], attempts integer[], crashes smallint[], timeouts_ms integer[], inputs json[], delays_ms double precision[], due_at timestamp with time zone[], labels text[], traces text[])
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
#variable_conflict use_column
DECLARE new_ids bigint[];
BEGIN
WITH new AS (
  INSERT INTO triphase.job
    (task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent)
  SELECT task, queue, CASE WHEN coalesce(t.run_at > clock_timestamp(), delay_ms > 0) THEN 'scheduled' ELSE 'available' END,
         priority, coalesce(t.run_at, clock_timestamp() + delay_ms * interval '1 millisecond'), max_attempts, max_crashes,
         timeout_ms, input, tags::text[], traceparent
  FROM unnest(
    tasks, queues, priorities, attempts, crashes, timeouts_ms, inputs, delays_ms, due_at, labels, traces
  ) WITH ORDINALITY AS t(
    task, queue, priority, max_attempts, max_crashes, timeout_ms, input, delay_ms, run_at, tags, traceparent, n
  ) ORDER BY n
  RETURNING id
)
SELECT array_agg(id) INTO new_ids FROM new;
RETURN new_ids;
END $function$;

CREATE OR REPLACE FUNCTION triphase.insert_unique_jobs(tasks text[], queues text[], priorities smallint[], attempts integer[], crashes smallint[], timeouts_ms integer[], inputs json[], delays_ms double precision[], due_at timestamp with time zone[], labels text[], traces text[], keys text[], periods_ms double precision[])
 RETURNS TABLE(key text, id text, created boolean)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
BEGIN RETURN QUERY
WITH new AS (
  SELECT * FROM unnest(
    tasks, queues, priorities, attempts, crashes, timeouts_ms, inputs, delays_ms, due_at, labels, traces, keys, periods_ms
  ) AS t(
    task, queue, priority, max_attempts, max_crashes, timeout_ms, input, delay_ms, run_at, tags, traceparent,
    unique_key, unique_for_ms
  )
), taken AS (
  INSERT INTO triphase.job_unique AS u (key, job_id, expires_at)
  SELECT unique_key, nextval('triphase.job_id'), clock_timestamp() + unique_for_ms * interval '1 millisecond'
  FROM new ORDER BY unique_key
  ON CONFLICT (key) DO UPDATE SET job_id = excluded.job_id, expires_at = excluded.expires_at
    WHERE coalesce(u.expires_at <= clock_timestamp(), true)
      AND u.ctid = (SELECT seen.ctid FROM triphase.job_unique seen WHERE seen.key = u.key)
      AND (SELECT job.id FROM triphase.job WHERE job.id = u.job_id) IS NULL
  RETURNING key, job_id
), inserted AS (
  INSERT INTO triphase.job
    (id, task, queue, state, priority, run_at, max_attempts, max_crashes, timeout_ms, input, tags, traceparent,
     unique_key)
  SELECT taken.job_id, task, queue,
         CASE WHEN coalesce(new.run_at > clock_timestamp(), delay_ms > 0) THEN 'scheduled' ELSE 'available' END, priority,
         coalesce(new.run_at, clock_timestamp() + delay_ms * interval '1 millisecond'), max_attempts, max_crashes,
         timeout_ms, input, tags::text[], traceparent, unique_key
  FROM new JOIN taken ON taken.key = new.unique_key
  RETURNING id, unique_key
)
SELECT i.unique_key, i.id::text, true FROM inserted i
UNION ALL
SELECT u.key, u.job_id::text, false FROM triphase.job_unique u
WHERE u.key = ANY (keys) AND NOT EXISTS (SELECT FROM taken WHERE taken.key = u.key);
END $function$;

CREATE OR REPLACE FUNCTION triphase.reschedule_jobs(job_ids bigint[], claim_nos integer[], states text[], delays_ms double precision[], given_back integer[], errors json[], outcomes text[], checkout_counts integer[], waits_ms real[], holds_ms real[], longest_holds_ms real[], phase_times json[], dropped_steps text[])
 RETURNS bigint[]
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
AS $function$
#variable_conflict use_column
DECLARE acked bigint[];
BEGIN
WITH ack AS (
  SELECT * FROM unnest(
    job_ids, claim_nos, states, delays_ms, given_back, errors, outcomes, checkout_counts, waits_ms, holds_ms,
    longest_holds_ms, phase_times, dropped_steps
  ) AS t(job_id, claim_no, state, delay_ms, given_back, error, outcome, checkouts, wait_ms, hold_ms,
         longest_hold_ms, phases, drop_steps)
), held AS (
  SELECT id, claimed_at, process_id, claim_no, attempt, queue, task FROM triphase.job
  WHERE id = ANY (job_ids)
    AND CASE WHEN state = 'executing' AND (id, claim_no) IN (SELECT a.job_id, a.claim_no FROM ack a)
        THEN true ELSE false END
  ORDER BY id FOR UPDATE
), back AS (
  UPDATE triphase.job
  SET state = a.state, run_at = clock_timestamp() + a.delay_ms * interval '1 millisecond',
      attempt = greatest(job.attempt - a.given_back, 0), process_id = NULL, claimed_at = NULL,
      position = CASE WHEN a.state = 'available' THEN nextval('triphase.job_position') ELSE job.position END
  FROM ack a
  WHERE job.id = ANY (ARRAY(SELECT id FROM held)) AND a.job_id = job.id
  RETURNING job.id
), kept AS (
  INSERT INTO triphase.job_attempt (
    job_id, started_at, process_id, claim_no, attempt, checkouts, wait_ms, hold_ms, longest_hold_ms, queue, task,
    outcome, error, phases)
  SELECT h.id, h.claimed_at, h.process_id, h.claim_no, h.attempt, a.checkouts, a.wait_ms, a.hold_ms,
         a.longest_hold_ms, h.queue, h.task, a.outcome, a.error, a.phases
  FROM held h JOIN ack a ON a.job_id = h.id WHERE a.outcome IS NOT NULL
), dropped AS (
  DELETE FROM triphase.answer x USING ack a
  WHERE x.job_id = ANY (ARRAY(SELECT id FROM held)) AND x.job_id = a.job_id AND a.drop_steps IS NOT NULL
    AND (a.drop_steps = '{}' OR x.step = ANY (a.drop_steps::text[]))
)
SELECT array_agg(id) INTO acked FROM held;
RETURN acked;
END $function$;

CREATE OR REPLACE FUNCTION triphase.store_answer(of_job bigint, by_claim integer, of_step text, given json)
 RETURNS TABLE(answer text, first boolean)
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
AS $function$
#variable_conflict use_column
BEGIN RETURN QUERY
WITH stored AS (
  INSERT INTO triphase.answer (job_id, claim_no, step, answer)
  SELECT of_job, by_claim, of_step, given WHERE EXISTS (SELECT FROM triphase.job WHERE id = of_job)
  ON CONFLICT (job_id, step) DO NOTHING
  RETURNING 1
)
SELECT NULL::text, true FROM stored
UNION ALL
SELECT x.answer::text, false FROM triphase.answer x
WHERE x.job_id = of_job AND x.step = of_step AND NOT EXISTS (SELECT FROM stored);
END $function$;

CREATE OR REPLACE FUNCTION triphase.sweep_beat(p_run bigint, p_page bigint, p_claim_no integer, p_wanted integer, p_busy integer, p_calls integer, p_spent double precision, p_drained boolean, p_ok integer, p_failed integer, p_trailing integer, p_slow_ms double precision, p_most_in_row integer, p_window integer, p_share double precision, OUT state text, OUT slots integer, OUT slow_ms double precision, OUT rate double precision, OUT calls_left bigint, OUT spend_left double precision, OUT stopping boolean)
 RETURNS record
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
DECLARE
  run triphase.sweep_run;
  page triphase.sweep_page;
  others record;
  share integer;
  free integer;
  in_row integer;
  recent integer;
  recent_failures integer;
  why text;
  used record;
BEGIN
  SELECT r.* INTO run FROM triphase.sweep_run r WHERE r.id = p_run FOR NO KEY UPDATE;
  SELECT p.* INTO page FROM triphase.sweep_page p WHERE p.id = p_page;
  SELECT coalesce(pr.stopping, false) INTO stopping
  FROM triphase.job j LEFT JOIN triphase.process pr ON pr.id = j.process_id
  WHERE j.id = page.job_id AND j.claim_no = p_claim_no AND j.state = 'executing';
  IF NOT FOUND THEN
    state := 'lost';
    slots := 0;
    RETURN;
  END IF;

  UPDATE triphase.sweep_page p SET calls = p_calls, spent = p_spent, drained = p_drained WHERE p.id = p_page;
  SELECT coalesce(sum(o.slots), 0)::integer AS slots, count(*)::integer AS pages,
         coalesce(sum(greatest(o.calls_granted - o.calls, 0)), 0) AS calls INTO others
  FROM triphase.sweep_page o
  JOIN triphase.job j ON j.id = o.job_id AND j.claim_no = o.claim_no AND j.state = 'executing'
  WHERE o.run_id = p_run AND o.id <> p_page AND (o.wanted > 0 OR o.slots > 0);
  SELECT run.calls + sum(p.calls) AS calls, run.spent + sum(p.spent) AS spent INTO used
  FROM triphase.sweep_page p WHERE p.run_id = p_run;

  in_row := CASE WHEN p_ok > 0 THEN p_trailing ELSE run.failures_in_row + p_trailing END;
  recent := run.window_calls + p_ok + p_failed;
  recent_failures := run.window_failures + p_failed;
  state := run.state;
  IF run.state = 'running' THEN
    why := CASE
      WHEN in_row >= p_most_in_row THEN format('%s calls failed in a row', in_row)
      WHEN recent >= p_window AND recent_failures >= p_share * recent
        THEN format('%s of the last %s calls failed', recent_failures, recent)
      WHEN used.calls >= run.call_budget THEN format('the budget of %s calls is used up', run.call_budget)
      WHEN used.spent >= run.spend_budget THEN format('%s of the budget of %s is spent', used.spent, run.spend_budget)
    END;
    IF why IS NOT NULL THEN state := 'paused'; END IF;
  END IF;
  -- The older half of the window is forgotten as it fills.
  IF recent >= 2 * p_window THEN
    recent := recent / 2;
    recent_failures := recent_failures / 2;
  END IF;
  UPDATE triphase.sweep_run r
  SET failures_in_row = in_row, window_calls = recent, window_failures = recent_failures,
      slow_until = CASE WHEN p_slow_ms > 0
        THEN greatest(r.slow_until, clock_timestamp() + p_slow_ms * interval '1 millisecond') ELSE r.slow_until END,
      state = sweep_beat.state, reason = coalesce(why, r.reason),
      active_ms = CASE WHEN why IS NULL THEN r.active_ms
        ELSE r.active_ms + extract(epoch FROM clock_timestamp() - r.running_since)::float8 * 1000 END,
      running_since = CASE WHEN why IS NULL THEN r.running_since END
  WHERE r.id = p_run
  RETURNING extract(epoch FROM r.slow_until - clock_timestamp())::float8 * 1000 INTO slow_ms;

  share := ceil(run.concurrency / (others.pages + 1.0));
  free := greatest(run.concurrency - others.slots, 0);
  IF state = 'running' THEN
    SELECT least(p_wanted, free, greatest(share, run.concurrency - coalesce(sum(least(o.wanted, share)), 0)))
    INTO slots
    FROM triphase.sweep_page o
    JOIN triphase.job j ON j.id = o.job_id AND j.claim_no = o.claim_no AND j.state = 'executing'
    WHERE o.run_id = p_run AND o.id <> p_page;
  ELSE
    slots := 0;
  END IF;
  slots := greatest(slots, 0);
  calls_left := greatest(0, least(
    ceil((run.call_budget - used.calls) / (others.pages + 1.0)), run.call_budget - used.calls - others.calls
  ));
  IF run.call_budget IS NULL THEN calls_left := NULL; END IF;
  UPDATE triphase.sweep_page p
  SET claim_no = p_claim_no, calls_granted = least(p_calls + coalesce(calls_left, 0), 2147483647),
      wanted = CASE WHEN sweep_beat.state = 'running' THEN p_wanted ELSE p_busy END,
      slots = greatest(sweep_beat.slots, p_busy)
  WHERE p.id = p_page;
  rate := run.rate * slots / greatest(others.slots + slots, 1);
  spend_left := (run.spend_budget - used.spent) / (others.pages + 1);
  slow_ms := coalesce(slow_ms, 0);
END
$function$;

CREATE OR REPLACE FUNCTION triphase.sweep_count(p_page bigint, p_done bigint, p_errors bigint)
 RETURNS void
 LANGUAGE plpgsql
 SET plan_cache_mode TO 'force_generic_plan'
 SET enable_seqscan TO 'off'
AS $function$
BEGIN
  IF p_done + p_errors = 0 THEN RETURN; END IF;
  UPDATE triphase.sweep_page p SET done = p.done + p_done, errors = p.errors + p_errors WHERE p.id = p_page;
END
$function$;
