-- What the migrations make of an empty database, read from the catalogs of PostgreSQL 18: to be compared, not to be run.
-- `npm run write-schema` writes it. Partitions by time are left out: the clock makes them, not a migration.

CREATE SEQUENCE triphase.job_id AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1;

CREATE SEQUENCE triphase.job_position AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1;

CREATE SEQUENCE triphase.process_id_seq AS bigint START 1 INCREMENT 1 MINVALUE 1 MAXVALUE 9223372036854775807 CACHE 1 OWNED BY triphase.process.id;

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
