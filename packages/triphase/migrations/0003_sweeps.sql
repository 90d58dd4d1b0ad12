-- Sweeps: passes over a table of the application, a call for each pending record (docs/sweeps.md).
--
-- The records' own rows say what is done: here stands only how far a run has come, and who calls how many at a time.
-- Stored states are wishes and facts; whatever depends on somebody being alive (pausing, interrupted, completing) is
-- derived from the jobs that drive the run, so that no crash can leave it behind.
--
-- Lock order: the run, then its pages, then `job` rows. A mark locks records of the application, then its page.

CREATE TABLE triphase.sweep_run (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  -- Since when it runs, while it runs; what it ran before is in active_ms.
  running_since timestamptz,
  active_ms double precision NOT NULL DEFAULT 0,
  -- An API asked to be called no sooner.
  slow_until timestamptz,
  -- Pending records when it began, and what became of those on pages that are through.
  total bigint,
  done bigint NOT NULL DEFAULT 0,
  errors bigint NOT NULL DEFAULT 0,
  calls bigint NOT NULL DEFAULT 0,
  spent double precision NOT NULL DEFAULT 0,
  call_budget bigint,
  spend_budget double precision,
  -- Calls a second, over all processes.
  rate double precision,
  steward_job bigint NOT NULL,
  hook_job bigint,
  concurrency integer NOT NULL,
  pass integer NOT NULL DEFAULT 1,
  pass_pages integer NOT NULL DEFAULT 0,
  -- Rises whenever the cursor moves: whoever read it before may not move it.
  feed_no integer NOT NULL DEFAULT 0,
  failures_in_row integer NOT NULL DEFAULT 0,
  window_calls integer NOT NULL DEFAULT 0,
  window_failures integer NOT NULL DEFAULT 0,
  -- The cursor has come to the end of this pass.
  fed boolean NOT NULL DEFAULT false,
  total_estimated boolean NOT NULL DEFAULT false,
  sweep text NOT NULL,
  queue text NOT NULL,
  state text NOT NULL DEFAULT 'planned',
  reason text,
  cursor text,
  samples json,
  CONSTRAINT sweep_run_state CHECK (
    state IN ('planned', 'running', 'paused', 'completed', 'cancelled', 'failed')
  ),
  CONSTRAINT sweep_run_since CHECK ((state = 'running') = (running_since IS NOT NULL)),
  CONSTRAINT sweep_run_finished CHECK (
    (state IN ('completed', 'cancelled', 'failed')) = (finished_at IS NOT NULL)
  ),
  CONSTRAINT sweep_run_limits CHECK (concurrency >= 1 AND rate > 0 AND call_budget >= 0 AND spend_budget >= 0)
) WITH (fillfactor = 50);
-- At most one run of a sweep is open.
CREATE UNIQUE INDEX sweep_run_open ON triphase.sweep_run (sweep) WHERE state IN ('planned', 'running', 'paused');
CREATE INDEX sweep_run_sweep ON triphase.sweep_run (sweep, id);

-- A range of keys, from_key excluded and to_key included, that is not through yet. Keys are JSON arrays of texts.
CREATE TABLE triphase.sweep_page (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  run_id bigint NOT NULL,
  job_id bigint NOT NULL,
  -- The claim that slots belongs to: once the job is not executing under it, they are nobody's.
  claim_no integer NOT NULL DEFAULT 0,
  wanted integer NOT NULL DEFAULT 0,
  slots integer NOT NULL DEFAULT 0,
  done integer NOT NULL DEFAULT 0,
  errors integer NOT NULL DEFAULT 0,
  calls integer NOT NULL DEFAULT 0,
  -- Of a call budget, the calls that it may reach before it asks again: nobody else is given them.
  calls_granted integer NOT NULL DEFAULT 0,
  spent double precision NOT NULL DEFAULT 0,
  crashes_seen integer NOT NULL DEFAULT 0,
  -- Records to be called one at a time, since one of them may have killed its process.
  cautious integer NOT NULL DEFAULT 0,
  -- Nothing in it is waiting for its first call.
  drained boolean NOT NULL DEFAULT false,
  from_key text,
  to_key text NOT NULL,
  -- The record that is being called while the page is cautious.
  calling text
) WITH (fillfactor = 50);
CREATE INDEX sweep_page_run ON triphase.sweep_page (run_id);

-- Records of a page that have failed and are to be tried again, or were being called when their process died.
CREATE TABLE triphase.sweep_record_try (
  page_id bigint NOT NULL,
  due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tries integer NOT NULL DEFAULT 0,
  crashes integer NOT NULL DEFAULT 0,
  record_key text NOT NULL,
  error text,
  PRIMARY KEY (page_id, record_key)
);

-- What a statement that marks records has marked: the counts of a page, exact whatever dies. Only the page's own process
-- waits for its row's lock. By sweep_page_pkey.
CREATE FUNCTION triphase.sweep_count(p_page bigint, p_done bigint, p_errors bigint) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $sweep_count$
BEGIN
  IF p_done + p_errors = 0 THEN RETURN; END IF;
  UPDATE triphase.sweep_page p SET done = p.done + p_done, errors = p.errors + p_errors WHERE p.id = p_page;
END
$sweep_count$;

-- What a page job says and learns once a second. A function, because what it grants depends on what others were
-- granted: the run's row is locked first, and only the statements after that see what its last holder wrote.
--
-- Slots: a page may use what it wants of an equal share, and more where the others do not want theirs; never more than
-- is free. What is busy stays counted, so a lower concurrency takes effect as calls end. While it asks, a page begins
-- nothing that would go beyond what it said: its slots may be fewer by then, and others', even if the answer is lost.
--
-- Its plans are kept and right for whatever the tables hold later (see 0002): sweep_run_pkey, sweep_page_run,
-- sweep_page_pkey, and job_pkey once a page.
CREATE FUNCTION triphase.sweep_beat(
  p_run bigint, p_page bigint, p_claim_no integer, p_wanted integer, p_busy integer, p_calls integer,
  p_spent double precision, p_drained boolean, p_ok integer, p_failed integer, p_trailing integer,
  p_slow_ms double precision, p_most_in_row integer, p_window integer, p_share double precision,
  OUT state text, OUT slots integer, OUT slow_ms double precision, OUT rate double precision,
  OUT calls_left bigint, OUT spend_left double precision, OUT stopping boolean
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $sweep_beat$
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
$sweep_beat$;
