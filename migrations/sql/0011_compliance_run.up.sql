-- One compliance run: its shards are jobs, each adds its counts in the transaction that ends it, the last one closes it.
CREATE TABLE compliance_run (
    org_id          uuid        NOT NULL CONSTRAINT compliance_run_org_id_fkey REFERENCES organization,
    id              uuid        NOT NULL,
    state           text        NOT NULL CONSTRAINT compliance_run_state_check CHECK (state IN
                        ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED')),
    trigger         text        NOT NULL CONSTRAINT compliance_run_trigger_check CHECK (trigger IN ('MANUAL', 'SCHEDULE')),
    actor_kind      text        NOT NULL CONSTRAINT compliance_run_actor_kind_check CHECK (actor_kind IN ('user', 'api_key', 'system')),
    actor_id        uuid,
    -- Begins with whose it is.
    idempotency_key text        CONSTRAINT compliance_run_idempotency_key_check CHECK (length(idempotency_key) BETWEEN 1 AND 320),
    -- Why it failed.
    error           text,
    assets          integer     NOT NULL DEFAULT 0,
    shards          integer     NOT NULL,
    shards_done     integer     NOT NULL DEFAULT 0,
    passed          integer     NOT NULL DEFAULT 0,
    failed          integer     NOT NULL DEFAULT 0,
    not_assessed    integer     NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    PRIMARY KEY (org_id, id),
    CONSTRAINT compliance_run_idempotency_key UNIQUE (org_id, idempotency_key),
    CONSTRAINT compliance_run_shards_check CHECK (shards_done BETWEEN 0 AND shards),
    CONSTRAINT compliance_run_finished_check CHECK ((finished_at IS NULL) = (state IN ('QUEUED', 'RUNNING'))),
    CONSTRAINT compliance_run_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
) WITH (fillfactor = 70);

ALTER TABLE compliance_run ENABLE ROW LEVEL SECURITY;
ALTER TABLE compliance_run FORCE ROW LEVEL SECURITY;
CREATE POLICY compliance_run_app ON compliance_run TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON compliance_run TO sentryops_app;
