-- The statements that every job costs, as functions: claim, acks, answers, inserts.
--
-- Behind a transaction-mode pooler a statement has to be sent unnamed, so the server parses and plans it anew each time,
-- which costs more than running it. The plans of a function's statements stay with the server's connection, whoever the
-- pooler lends it to. Above claim_jobs and finish_jobs stands what else was measured (docs/performance.md, "Ways to write
-- it"). Of inserts, the backend's CPU for 1, 10 and 1,000 jobs: unnamed 86, 218 and 4,600 us, as functions 45, 105 and 4,400.
--
-- A kept plan has to be right for whatever the tables hold later, so each function plans once, for no particular values
-- (plan_cache_mode), and never by reading a whole table (enable_seqscan), which is what looks cheapest while a table is
-- empty. Each statement finds its rows by an index through an array, so nothing is left for statistics to decide.
--
-- A function is never changed by a later migration in a way that a running older version of the engine would notice:
-- what has to change gets a new name.

-- Candidates come from job_suspect and job_available in order and are locked as they are read, one priority after the
-- other: an Append stops as soon as the limit is reached, so a later priority costs nothing then. The UPDATE finds them
-- by job_pkey. At most one suspect is claimed, and only when the process runs none: a job that took two processes down
-- must not take other suspects with it. A process that was taken for dead and does not know it yet claims nothing
-- (process_pkey). Without sorts and bitmaps the order can only come from the index.
--
-- Measured, one connection, by 1 / 10 / 200 jobs a claim:   jobs/s                     database CPU, us/job   WAL bytes/job
--   this function                                            4,235 / 25,523 / 86,221    160 / 29 / 8.2         446 / 372 / 434
--   the same statement, unnamed                              1,585 / 11,981 / 75,889    537 / 71 / 10.0        the same
--   one scan for all priorities, joined, unnamed             3,047 / 18,723 / 80,882    258 / 41 / 9.3         the same
--   the same, named: no pooler lets it pass                  7,073 / 31,792 / 86,679     73 / 21 / 8.8         the same
-- One scan has no place for a low-water mark of each priority, so it walks what an old snapshot keeps.
CREATE FUNCTION triphase.claim_jobs(
  of_queue text, for_process bigint, most integer, most_suspects integer,
  after_urgent bigint, after_high bigint, after_normal bigint, after_low bigint
) RETURNS TABLE (
  id text, claim_no integer, attempt integer, max_attempts integer, crash_count smallint, timeout_ms integer, queue text,
  task text, input text, tags text[], inserted_at timestamptz, claimed_at timestamptz, traceparent text,
  priority smallint, "position" text, oldest_open text, horizon text
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_sort = off SET enable_bitmapscan = off
AS $claim_jobs$
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
END $claim_jobs$;

-- A job leaves `job` and enters history in this one statement, so its id is in exactly one of them. Jobs are found by
-- job_pkey, in ascending id (a bitmap would lock them in the order in which they lie); state and fence are a CASE, a filter
-- that no other index and no join can be chosen for: under a snapshot that somebody holds, job_executing is full of dead
-- entries. What hangs on a job is removed by its own primary key; most jobs
-- have none of it, and say so in the row. Ids come back in one value, null for none. Without `keep_completed`, completed jobs leave no history and no attempt.
--
-- Measured, one connection, by 1 / 10 / 200 jobs an ack:    jobs/s                      database CPU, us/job  WAL bytes/job
--   this function                                            5,417 / 36,495 / 141,214   128 / 19 / 5.3         338 / 297 / 292
--   the same statement, unnamed                              1,330 / 11,651 / 103,047   668 / 74 / 8.2         the same
--   the fence as a join, unnamed                             2,661 / 24,042 / 31,165    293 / 33 / 30          345 / 305 / 302
--   the same, named: no pooler lets it pass                  3,696 / 59,591 / 159,865   193 / 10 / 5.2         345 / 305 / 300
--   an update in place, named                                4,813 / 60,538 / 146,899   137 / 10 / 5.3         281 / 214 / 284
-- The join's plan hangs on statistics: by 200 it read the whole table. The last three keep less (no attempts, no unique
-- keys, no answers), and an update in place leaves the finished jobs among the waiting ones.
CREATE FUNCTION triphase.finish_jobs(
  job_ids bigint[], claim_nos integer[], states text[], results json[], errors json[], outcomes text[],
  checkout_counts integer[], waits_ms real[], holds_ms real[], longest_holds_ms real[], phase_times json[],
  dropped_steps text[], keep_completed boolean
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
AS $finish_jobs$
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
END $finish_jobs$;

-- Back to waiting: the same fence. A job that is due at once takes a new place at the end of its queue.
CREATE FUNCTION triphase.reschedule_jobs(
  job_ids bigint[], claim_nos integer[], states text[], delays_ms float8[], given_back integer[], errors json[],
  outcomes text[], checkout_counts integer[], waits_ms real[], holds_ms real[], longest_holds_ms real[],
  phase_times json[], dropped_steps text[]
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
AS $reschedule_jobs$
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
END $reschedule_jobs$;

-- Not fenced: an answer that was paid for is kept, whoever holds the job now. The first writer wins (answer_pkey); the
-- second gets the first one's answer. A job that is gone (job_pkey) needs no answer.
CREATE FUNCTION triphase.store_answer(of_job bigint, by_claim integer, of_step text, given json)
RETURNS TABLE (answer text, first boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $store_answer$
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
END $store_answer$;

-- One job, by far the most common case: a plain VALUES costs half of what eleven arrays do, a value that is returned 65 us
-- where a set of one row costs 80, and a setting that is made and taken back for each call 5. Its plan has nothing to choose.
CREATE FUNCTION triphase.insert_job(
  of_task text, in_queue text, with_priority smallint, attempts integer, crashes smallint, timeout integer, given json,
  delay_ms float8, due_at timestamptz, labels text[], trace text
) RETURNS bigint LANGUAGE plpgsql
AS $insert_job$
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
END $insert_job$;

-- Many jobs that differ in nothing but their input, as those of one call mostly do: 3.5 us a job, where eleven arrays cost
-- 3.8. Ids come in the order of the inputs, all in one value: a row for each costs 0.3 us over there and 0.2 here.
CREATE FUNCTION triphase.insert_alike_jobs(
  of_task text, in_queue text, with_priority smallint, attempts integer, crashes smallint, timeout integer, inputs json[],
  delay_ms float8, due_at timestamptz, labels text[], trace text
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $insert_alike_jobs$
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
END $insert_alike_jobs$;

-- Ids in one value, in the order of the inputs. A column without any value may be empty: unnest fills up with nulls.
CREATE FUNCTION triphase.insert_jobs(
  tasks text[], queues text[], priorities smallint[], attempts integer[], crashes smallint[], timeouts_ms integer[],
  inputs json[], delays_ms float8[], due_at timestamptz[], labels text[], traces text[]
) RETURNS bigint[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
AS $insert_jobs$
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
END $insert_jobs$;

-- The key decides: whoever gets it writes the job. A key is taken over once its period is over and its job is gone
-- (job_pkey). ON CONFLICT waits for a concurrent holder to commit or roll back; keys are given in order, so that two
-- such statements cannot deadlock. After that wait the key is read as it is now, its job still as of before the wait:
-- so only a key that has not changed since (the same ctid) is taken over, or its new holder's job would seem gone.
-- A key that was committed by somebody else while this statement ran is in neither part of the answer: the caller
-- asks again. Both questions about a taken key are scalar (job_unique_pkey, job_pkey): as EXISTS they may be answered by
-- hashing the whole of both tables.
CREATE FUNCTION triphase.insert_unique_jobs(
  tasks text[], queues text[], priorities smallint[], attempts integer[], crashes smallint[], timeouts_ms integer[],
  inputs json[], delays_ms float8[], due_at timestamptz[], labels text[], traces text[], keys text[], periods_ms float8[]
) RETURNS TABLE (key text, id text, created boolean) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $insert_unique_jobs$
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
END $insert_unique_jobs$;
