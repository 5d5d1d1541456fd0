-- Every transaction takes one of three roles: what is not granted to it, here and below, is refused.
GRANT USAGE ON SCHEMA public TO sentryops_app, sentryops_auth, sentryops_fleet;

CREATE TABLE organization (
    id         uuid        PRIMARY KEY,
    slug       text        NOT NULL CONSTRAINT organization_slug_key UNIQUE
                           CONSTRAINT organization_slug_check CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name       text        NOT NULL CONSTRAINT organization_name_check CHECK (length(name) BETWEEN 1 AND 255),
    is_demo    boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL
);

ALTER TABLE organization ENABLE ROW LEVEL SECURITY;
ALTER TABLE organization FORCE ROW LEVEL SECURITY;
CREATE POLICY organization_app ON organization FOR SELECT TO sentryops_app
    USING (id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY organization_auth ON organization TO sentryops_auth USING (true) WITH CHECK (true);
CREATE POLICY organization_fleet ON organization FOR SELECT TO sentryops_fleet USING (true);

GRANT SELECT ON organization TO sentryops_app, sentryops_fleet;
GRANT SELECT, INSERT, UPDATE ON organization TO sentryops_auth;
