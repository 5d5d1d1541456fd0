-- A session is one sign-in; it is read on every request, so that ending it refuses the next one. Its refresh tokens
-- are one family: each works once, and using one again ends the session.
CREATE TABLE session (
    id           uuid        PRIMARY KEY,
    org_id       uuid        NOT NULL,
    user_id      uuid        NOT NULL,
    source_ip    inet        NOT NULL,
    created_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    end_reason   text        CONSTRAINT session_end_reason_check CHECK (end_reason IN
                     ('logout', 'revoked', 'refresh_reuse', 'password_changed', 'deactivated', 'too_many')),
    CONSTRAINT session_membership_fkey FOREIGN KEY (org_id, user_id) REFERENCES membership,
    CONSTRAINT session_end_check CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX session_user_idx ON session (user_id, created_at);

CREATE TABLE refresh_token (
    token_hash bytea       PRIMARY KEY,
    session_id uuid        NOT NULL CONSTRAINT refresh_token_session_fkey REFERENCES session ON DELETE CASCADE,
    parent     bytea       CONSTRAINT refresh_token_parent_fkey REFERENCES refresh_token ON DELETE SET NULL,
    issued_at  timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX refresh_token_session_idx ON refresh_token (session_id);

ALTER TABLE session ENABLE ROW LEVEL SECURITY;
ALTER TABLE session FORCE ROW LEVEL SECURITY;
ALTER TABLE refresh_token ENABLE ROW LEVEL SECURITY;
ALTER TABLE refresh_token FORCE ROW LEVEL SECURITY;
CREATE POLICY session_auth ON session TO sentryops_auth USING (true) WITH CHECK (true);
CREATE POLICY session_app ON session FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY refresh_token_auth ON refresh_token TO sentryops_auth USING (true) WITH CHECK (true);

GRANT SELECT ON session TO sentryops_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON session, refresh_token TO sentryops_auth;
