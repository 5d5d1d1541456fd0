-- An order that waits for a worker or is being carried out: inserted in the transaction of the change that wants it,
-- deleted when it is done (see job_history). A lease is a dated claim; its number, the fence, refuses the stale.
-- No foreign key to the organization: it would be checked for each row of a batch of thousands, and organizations stay.
CREATE TABLE job (
    id               uuid        NOT NULL,
    org_id           uuid        NOT NULL,
    queue            text        NOT NULL CONSTRAINT job_queue_check CHECK (queue IN
                         ('SCAN', 'PROBE', 'TRIAGE', 'IMPORT', 'NOTIFY', 'UPKEEP')),
    kind             text        NOT NULL CONSTRAINT job_kind_check CHECK (length(kind) BETWEEN 1 AND 64),
    version          smallint    NOT NULL,
    payload          jsonb       NOT NULL,
    -- What it is about, as a TypeID.
    subject          text,
    state            text        NOT NULL CONSTRAINT job_state_check CHECK (state IN
                         ('WAITING', 'SCHEDULED', 'RUNNING', 'BURIED')),
    -- A large batch lowers it step by step, so that it does not starve others.
    priority         integer     NOT NULL,
    run_at           timestamptz NOT NULL,
    attempt          smallint    NOT NULL DEFAULT 0,
    max_attempts     smallint    NOT NULL CONSTRAINT job_max_attempts_check CHECK (max_attempts > 0),
    -- It ended with its worker and has few attempts left: it may be what kills workers, and runs apart from its like.
    is_suspect       boolean     NOT NULL DEFAULT false,
    fence            integer     NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    worker           uuid,
    -- While one of this key waits, another push is the same job.
    unique_key       text        CONSTRAINT job_unique_key_check CHECK (length(unique_key) BETWEEN 1 AND 255),
    -- Burying, discarding or cancelling it pushes a job that tells its kind so.
    watched          boolean     NOT NULL DEFAULT false,
    is_cancelling    boolean     NOT NULL DEFAULT false,
    actor_kind       text        NOT NULL CONSTRAINT job_actor_kind_check CHECK (actor_kind IN ('user', 'api_key', 'system')),
    actor_id         uuid,
    -- What the actor must still be allowed to do when it runs.
    permission       text,
    error            text,
    queued_at        timestamptz NOT NULL,
    started_at       timestamptz,
    changed_at       timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT job_lease_check CHECK ((state = 'RUNNING') = (lease_until IS NOT NULL)),
    CONSTRAINT job_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX job_ready_idx ON job (queue, priority DESC, run_at, id) WHERE state = 'WAITING' AND NOT is_suspect;
CREATE INDEX job_suspect_idx ON job (queue, run_at, id) WHERE state = 'WAITING' AND is_suspect;
CREATE INDEX job_scheduled_idx ON job (queue, run_at) WHERE state = 'SCHEDULED';
CREATE INDEX job_lease_idx ON job (lease_until) WHERE state = 'RUNNING';
CREATE INDEX job_buried_idx ON job (org_id, id) WHERE state = 'BURIED';
CREATE UNIQUE INDEX job_unique_idx ON job (org_id, kind, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('WAITING', 'SCHEDULED');

ALTER TABLE job ENABLE ROW LEVEL SECURITY;
ALTER TABLE job FORCE ROW LEVEL SECURITY;
CREATE POLICY job_app ON job TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY job_fleet ON job TO sentryops_fleet USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON job TO sentryops_app, sentryops_fleet;
