-- What is to be done at which times. Any worker claims what is due; what was missed while nobody looked is done once.
CREATE TABLE schedule (
    org_id      uuid        NOT NULL CONSTRAINT schedule_org_id_fkey REFERENCES organization,
    id          uuid        NOT NULL,
    name        text        NOT NULL CONSTRAINT schedule_name_check CHECK (length(name) BETWEEN 1 AND 255),
    cron        text        NOT NULL CONSTRAINT schedule_cron_check CHECK (length(cron) BETWEEN 1 AND 255),
    time_zone   text        NOT NULL CONSTRAINT schedule_time_zone_check CHECK (length(time_zone) BETWEEN 1 AND 64),
    action      text        NOT NULL CONSTRAINT schedule_action_check CHECK (action IN ('COMPLIANCE_RUN')),
    enabled     boolean     NOT NULL,
    -- Who saved it last: their right is checked at each run.
    actor_kind  text        NOT NULL CONSTRAINT schedule_actor_kind_check CHECK (actor_kind IN ('user', 'api_key', 'system')),
    actor_id    uuid,
    -- The time by the clock of the expression; next_run_at adds the spread.
    next_tick   timestamptz,
    last_run_at timestamptz,
    next_run_at timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT schedule_name_key UNIQUE (org_id, name),
    CONSTRAINT schedule_next_check CHECK ((next_tick IS NULL) = (next_run_at IS NULL)),
    CONSTRAINT schedule_actor_check CHECK ((actor_kind = 'system') = (actor_id IS NULL))
);
CREATE INDEX schedule_due_idx ON schedule (next_run_at) WHERE enabled;

ALTER TABLE schedule ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedule FORCE ROW LEVEL SECURITY;
CREATE POLICY schedule_app ON schedule TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY schedule_fleet ON schedule TO sentryops_fleet USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON schedule TO sentryops_app;
GRANT SELECT, UPDATE ON schedule TO sentryops_fleet;
