-- How long each process may be silent, in milliseconds: processes with other settings than its own, as a rolling deploy has
-- them side by side, must not take it for dead sooner. 0: it has not said, and is judged by the observer's own settings.

ALTER TABLE triphase.process ADD COLUMN dead_after_ms integer NOT NULL DEFAULT 0;
