-- A dated permission to leave a rule broken: on one asset, or on all of them.
CREATE TABLE waiver (
    org_id       uuid        NOT NULL,
    id           uuid        NOT NULL,
    rule_id      uuid        NOT NULL,
    -- Of all assets where there is none. No foreign key: a waiver outlives its asset, for whoever asks who granted it.
    asset_id     uuid,
    reason       text        NOT NULL CONSTRAINT waiver_reason_check CHECK (length(reason) BETWEEN 1 AND 4096),
    granted_kind text        NOT NULL CONSTRAINT waiver_granted_kind_check CHECK (granted_kind IN ('user', 'api_key', 'system')),
    granted_by   uuid,
    granted_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    revoked_kind text        CONSTRAINT waiver_revoked_kind_check CHECK (revoked_kind IN ('user', 'api_key', 'system')),
    revoked_by   uuid,
    revoked_at   timestamptz,
    PRIMARY KEY (org_id, id),
    CONSTRAINT waiver_rule_fkey FOREIGN KEY (org_id, rule_id) REFERENCES rule,
    CONSTRAINT waiver_expires_check CHECK (expires_at > granted_at),
    CONSTRAINT waiver_revoked_check CHECK ((revoked_at IS NULL) = (revoked_kind IS NULL))
);
CREATE INDEX waiver_live_idx ON waiver (org_id, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX waiver_rule_idx ON waiver (org_id, rule_id);

ALTER TABLE waiver ENABLE ROW LEVEL SECURITY;
ALTER TABLE waiver FORCE ROW LEVEL SECURITY;
CREATE POLICY waiver_app ON waiver TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON waiver TO sentryops_app;
