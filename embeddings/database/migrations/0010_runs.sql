-- Runs of the retraining job. At most one waits or is under way: `runs_open` holds the same value for each such row.
CREATE TABLE runs (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now(),
    requested_by text NOT NULL,
    reason text NOT NULL CHECK (reason IN ('request', 'schedule')),
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'published', 'refused', 'failed')),
    started_at timestamptz,
    ended_at timestamptz,
    -- How often it was started; one that was interrupted goes on and is not counted again.
    attempts bigint NOT NULL DEFAULT 0,
    progress jsonb,
    metrics jsonb,
    release text,
    message text NOT NULL DEFAULT '',
    log text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX runs_open ON runs ((true)) WHERE state IN ('queued', 'running');
