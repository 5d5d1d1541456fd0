-- A key for programs: scoped to permissions, and at most as much as whoever made it could do then.
CREATE TABLE api_key (
    org_id       uuid        NOT NULL CONSTRAINT api_key_org_id_fkey REFERENCES organization,
    id           uuid        NOT NULL,
    name         text        NOT NULL CONSTRAINT api_key_name_check CHECK (length(name) BETWEEN 1 AND 255),
    prefix       text        NOT NULL CONSTRAINT api_key_prefix_key UNIQUE,
    secret_hash  bytea       NOT NULL,
    permissions  text[]      NOT NULL,
    allowed_cidrs text[]     NOT NULL DEFAULT '{}',
    created_by   uuid        NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz,
    PRIMARY KEY (org_id, id),
    CONSTRAINT api_key_created_by_fkey FOREIGN KEY (org_id, created_by) REFERENCES membership
);

ALTER TABLE api_key ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key FORCE ROW LEVEL SECURITY;
CREATE POLICY api_key_app ON api_key FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY api_key_auth ON api_key TO sentryops_auth USING (true) WITH CHECK (true);

GRANT SELECT (org_id, id, name, prefix, permissions, allowed_cidrs, created_by, created_at, expires_at, last_used_at, revoked_at)
    ON api_key TO sentryops_app;
GRANT SELECT, INSERT, UPDATE ON api_key TO sentryops_auth;
