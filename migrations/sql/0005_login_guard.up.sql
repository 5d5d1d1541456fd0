-- Failed sign-ins by account and by address. Here and not in Redis: a flush must not unlock anybody.
-- Keys are hashes: no e-mail of a stranger is stored. An account is counted whether it exists or not.
CREATE TABLE login_guard (
    scope             text        NOT NULL CONSTRAINT login_guard_scope_check CHECK (scope IN ('account', 'address')),
    key               bytea       NOT NULL,
    failures          integer     NOT NULL,
    -- Failures in a row since the last success; what ends in a lock that only an administrator's reset opens.
    consecutive       integer     NOT NULL,
    -- Locks in a row: each doubles the next.
    locks             integer     NOT NULL,
    window_started_at timestamptz NOT NULL,
    locked_until      timestamptz,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX login_guard_updated_idx ON login_guard (updated_at);

ALTER TABLE login_guard ENABLE ROW LEVEL SECURITY;
ALTER TABLE login_guard FORCE ROW LEVEL SECURITY;
CREATE POLICY login_guard_auth ON login_guard TO sentryops_auth USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON login_guard TO sentryops_auth;
