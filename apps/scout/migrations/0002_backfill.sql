-- A backfill has a model describe again what was analysed before it began. The sweep that does it keeps its place in the
-- captures themselves.

CREATE TABLE scout.backfill (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  -- Captures that came later are none of its business: they were analysed with what their camera's profile says now.
  last_capture_id bigint NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);

-- One at a time.
CREATE UNIQUE INDEX backfill_open ON scout.backfill ((finished_at IS NULL)) WHERE finished_at IS NULL;

ALTER TABLE scout.capture
  -- The last one that this capture is, or was, a part of; 0: none.
  ADD COLUMN backfill_id bigint NOT NULL DEFAULT 0,
  ADD COLUMN backfill_status text NOT NULL DEFAULT 'pending',
  ADD COLUMN backfill_result json,
  ADD COLUMN backfill_error text;

CREATE INDEX capture_backfill_status ON scout.capture (backfill_status, id);
CREATE INDEX capture_backfill_pending ON scout.capture (id) WHERE backfill_status = 'pending' AND backfill_id > 0;
