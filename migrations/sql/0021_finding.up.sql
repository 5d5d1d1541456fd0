-- A rule that an asset breaks, from when it was seen until it ended: broken again, it is a new finding. So what opened and what
-- ended between two times can be asked of this table alone, and a run writes only what changed.
-- No foreign keys: see posture.
CREATE TABLE finding (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL,
    asset_id    uuid        NOT NULL,
    rule_id     uuid        NOT NULL,
    -- The rule's version that found it, or that looked last.
    version_id  uuid        NOT NULL,
    severity    text        NOT NULL CONSTRAINT finding_severity_check CHECK (severity IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')),
    -- Its severity as a number, so that the worst come first.
    weight      smallint    NOT NULL,
    state       text        NOT NULL CONSTRAINT finding_state_check CHECK (state IN ('OPEN', 'WAIVED', 'FIXED', 'OUT_OF_SCOPE')),
    -- Read whole or not at all: taking it apart for each of hundreds of thousands of rows would cost more than the rest.
    evidence    json        NOT NULL,
    waiver_id   uuid,
    -- How often the asset had broken it before.
    reopened    integer     NOT NULL DEFAULT 0,
    opened_at   timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    -- When it was fixed, or went out of scope.
    ended_at    timestamptz,
    PRIMARY KEY (org_id, id),
    CONSTRAINT finding_ended_check CHECK ((ended_at IS NULL) = (state IN ('OPEN', 'WAIVED'))),
    CONSTRAINT finding_waiver_check CHECK ((waiver_id IS NOT NULL) OR state <> 'WAIVED')
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX finding_live_idx ON finding (org_id, asset_id, rule_id) WHERE ended_at IS NULL;
CREATE INDEX finding_worst_idx ON finding (org_id, weight, id) WHERE ended_at IS NULL;
-- By other words than the next: without statistics Postgres would take it for the next one's question, row by row.
CREATE INDEX finding_ended_idx ON finding (org_id, ended_at) WHERE state IN ('FIXED', 'OUT_OF_SCOPE');
CREATE INDEX finding_history_idx ON finding (org_id, asset_id, rule_id, ended_at) WHERE ended_at IS NOT NULL;

ALTER TABLE finding ENABLE ROW LEVEL SECURITY;
ALTER TABLE finding FORCE ROW LEVEL SECURITY;
-- The organization is asked for once a statement, not for each row.
CREATE POLICY finding_app ON finding TO sentryops_app
    USING (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid))
    WITH CHECK (org_id = (SELECT NULLIF(current_setting('app.org_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE, DELETE ON finding TO sentryops_app;
