-- A machine-checkable condition, as an organization has it: its settings here, what it says in versions that never change.
-- Its slot is its place in the verdicts of a posture, given once and never to another.
CREATE TABLE rule (
    org_id     uuid        NOT NULL CONSTRAINT rule_org_id_fkey REFERENCES organization,
    id         uuid        NOT NULL,
    key        text        NOT NULL CONSTRAINT rule_key_check CHECK (key ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    slot       smallint    NOT NULL CONSTRAINT rule_slot_check CHECK (slot BETWEEN 0 AND 255),
    builtin    boolean     NOT NULL,
    enabled    boolean     NOT NULL,
    -- The version that counts now.
    version    integer     NOT NULL,
    -- What the organization sets instead of the version's own.
    params     jsonb       NOT NULL CONSTRAINT rule_params_check CHECK (jsonb_typeof(params) = 'object'),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT rule_key_key UNIQUE (org_id, key),
    CONSTRAINT rule_slot_key UNIQUE (org_id, slot)
);

CREATE TABLE rule_version (
    org_id      uuid        NOT NULL,
    id          uuid        NOT NULL,
    rule_id     uuid        NOT NULL,
    version     integer     NOT NULL CONSTRAINT rule_version_version_check CHECK (version > 0),
    title       text        NOT NULL CONSTRAINT rule_version_title_check CHECK (length(title) BETWEEN 1 AND 255),
    severity    text        NOT NULL CONSTRAINT rule_version_severity_check CHECK (severity IN ('LOW', 'MEDIUM', 'HIGH', 'CRITICAL')),
    controls    jsonb       NOT NULL,
    applies_to  jsonb       NOT NULL,
    params      jsonb       NOT NULL,
    condition   text        NOT NULL CONSTRAINT rule_version_condition_check CHECK (octet_length(condition) BETWEEN 1 AND 4096),
    evidence    jsonb       NOT NULL,
    remediation text        NOT NULL CONSTRAINT rule_version_remediation_check CHECK (length(remediation) BETWEEN 1 AND 4096),
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT rule_version_key UNIQUE (org_id, rule_id, version),
    CONSTRAINT rule_version_rule_fkey FOREIGN KEY (org_id, rule_id) REFERENCES rule
);

ALTER TABLE rule ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule FORCE ROW LEVEL SECURITY;
CREATE POLICY rule_app ON rule TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON rule TO sentryops_app;

ALTER TABLE rule_version ENABLE ROW LEVEL SECURITY;
ALTER TABLE rule_version FORCE ROW LEVEL SECURITY;
CREATE POLICY rule_version_app ON rule_version TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid)
    WITH CHECK (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
-- Never updated: what a run judged by can be read for ever.
GRANT SELECT, INSERT ON rule_version TO sentryops_app;
