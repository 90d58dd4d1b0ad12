-- Scout's own tables. A camera delivers captures; each capture has at most one analysis, with its observations.

CREATE TABLE scout.camera (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  name text NOT NULL UNIQUE,
  -- What to look for: {"prompt": text, "labels": [text] or null}. Without one, captures cannot be analysed.
  profile jsonb,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scout.capture (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  camera_id bigint NOT NULL REFERENCES scout.camera,
  -- The job that analyses it; its row is in the engine's tables.
  job_id bigint,
  -- SHA-256 of the file, in hexadecimal: an image that is delivered twice is one capture.
  content_hash text NOT NULL UNIQUE,
  object_key text NOT NULL,
  file_name text NOT NULL,
  bytes bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE scout.analysis (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  capture_id bigint NOT NULL UNIQUE REFERENCES scout.capture,
  status text NOT NULL CHECK (status IN ('processing', 'completed', 'failed')),
  model text,
  usage jsonb,
  -- Of a failed one: a stable word to count by, and a sentence for people.
  error_code text,
  error text,
  started_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  CHECK ((status = 'processing') = (finished_at IS NULL))
);

CREATE TABLE scout.observation (
  id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  analysis_id bigint NOT NULL REFERENCES scout.analysis,
  -- Its place in the model's answer.
  position integer NOT NULL,
  label text NOT NULL,
  confidence real CHECK (confidence BETWEEN 0 AND 1),
  text text,
  -- {"x", "y", "width", "height"} as fractions of the image.
  box jsonb,
  UNIQUE (analysis_id, position)
);
