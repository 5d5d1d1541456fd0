-- People are known to the installation; what they may do, they may do in an organization, by membership and its roles.
CREATE TABLE "user" (
    id                  uuid        PRIMARY KEY,
    email               text        NOT NULL CONSTRAINT user_email_key UNIQUE
                                    CONSTRAINT user_email_check CHECK (length(email) BETWEEN 3 AND 255),
    name                text        NOT NULL CONSTRAINT user_name_check CHECK (length(name) BETWEEN 1 AND 255),
    password_hash       text,
    password_changed_at timestamptz,
    mfa_enabled         boolean     NOT NULL DEFAULT false,
    created_at          timestamptz NOT NULL,
    last_seen_at        timestamptz
);

CREATE TABLE role (
    org_id      uuid    NOT NULL CONSTRAINT role_org_id_fkey REFERENCES organization,
    id          uuid    NOT NULL,
    key         text    NOT NULL CONSTRAINT role_key_check CHECK (key ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
    name        text    NOT NULL CONSTRAINT role_name_check CHECK (length(name) BETWEEN 1 AND 255),
    permissions text[]  NOT NULL,
    builtin     boolean NOT NULL,
    PRIMARY KEY (org_id, id),
    CONSTRAINT role_key_key UNIQUE (org_id, key)
);

CREATE TABLE membership (
    org_id      uuid        NOT NULL CONSTRAINT membership_org_id_fkey REFERENCES organization,
    user_id     uuid        NOT NULL CONSTRAINT membership_user_id_fkey REFERENCES "user",
    active      boolean     NOT NULL DEFAULT true,
    -- FLEET_READ and FLEET_MANAGE: of the installation, granted on the command line only.
    permissions text[]      NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (org_id, user_id)
);
CREATE INDEX membership_user_idx ON membership (user_id);

CREATE TABLE membership_role (
    org_id  uuid NOT NULL,
    user_id uuid NOT NULL,
    role_id uuid NOT NULL,
    PRIMARY KEY (org_id, user_id, role_id),
    CONSTRAINT membership_role_membership_fkey FOREIGN KEY (org_id, user_id) REFERENCES membership ON DELETE CASCADE,
    CONSTRAINT membership_role_role_fkey FOREIGN KEY (org_id, role_id) REFERENCES role
);
CREATE INDEX membership_role_role_idx ON membership_role (org_id, role_id);

-- An organization that once had an owner keeps an active one. Checked at commit, behind a lock on the organization:
-- of two owners who demote each other at once, the second to commit sees the first one's demotion and fails. The lock
-- lets foreign keys refer to the organization meanwhile: both have written their audit entries, and would deadlock.
CREATE FUNCTION membership_keeps_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM organization WHERE id = OLD.org_id FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT FROM role WHERE role.org_id = OLD.org_id AND role.key = 'owner' AND role.builtin
    ) AND NOT EXISTS (
        SELECT FROM membership
        JOIN membership_role USING (org_id, user_id)
        JOIN role ON role.org_id = membership_role.org_id AND role.id = membership_role.role_id
        WHERE membership.org_id = OLD.org_id AND membership.active AND role.key = 'owner' AND role.builtin
    ) THEN
        RAISE EXCEPTION 'an organization keeps at least one active owner'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_keeps_owner';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION membership_role_is_owner(org uuid, role_row uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM role WHERE org_id = org AND id = role_row AND key = 'owner' AND builtin)
$$;
CREATE FUNCTION membership_is_owner(org uuid, member uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM membership_role
        WHERE org_id = org AND user_id = member AND membership_role_is_owner(org_id, role_id)
    )
$$;
CREATE CONSTRAINT TRIGGER membership_role_keeps_owner
    AFTER DELETE OR UPDATE ON membership_role DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (membership_role_is_owner(OLD.org_id, OLD.role_id))
    EXECUTE FUNCTION membership_keeps_owner();
CREATE CONSTRAINT TRIGGER membership_active_keeps_owner
    AFTER UPDATE OF active ON membership DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.active AND NOT NEW.active AND membership_is_owner(OLD.org_id, OLD.user_id))
    EXECUTE FUNCTION membership_keeps_owner();

ALTER TABLE "user" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "user" FORCE ROW LEVEL SECURITY;
ALTER TABLE role ENABLE ROW LEVEL SECURITY;
ALTER TABLE role FORCE ROW LEVEL SECURITY;
ALTER TABLE membership ENABLE ROW LEVEL SECURITY;
ALTER TABLE membership FORCE ROW LEVEL SECURITY;
ALTER TABLE membership_role ENABLE ROW LEVEL SECURITY;
ALTER TABLE membership_role FORCE ROW LEVEL SECURITY;

-- An organization sees the people who are or were its members, and nobody's password hash.
CREATE POLICY user_app ON "user" FOR SELECT TO sentryops_app
    USING (EXISTS (SELECT FROM membership WHERE membership.user_id = "user".id));
CREATE POLICY role_app ON role FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY membership_app ON membership FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY membership_role_app ON membership_role FOR SELECT TO sentryops_app
    USING (org_id = NULLIF(current_setting('app.org_id', true), '')::uuid);
CREATE POLICY user_auth ON "user" TO sentryops_auth USING (true) WITH CHECK (true);
CREATE POLICY role_auth ON role TO sentryops_auth USING (true) WITH CHECK (true);
CREATE POLICY membership_auth ON membership TO sentryops_auth USING (true) WITH CHECK (true);
CREATE POLICY membership_role_auth ON membership_role TO sentryops_auth USING (true) WITH CHECK (true);

GRANT SELECT (id, email, name, mfa_enabled, created_at, last_seen_at) ON "user" TO sentryops_app;
GRANT SELECT ON role, membership, membership_role TO sentryops_app;
GRANT SELECT, INSERT, UPDATE ON "user", membership TO sentryops_auth;
GRANT SELECT, INSERT, UPDATE, DELETE ON role, membership_role TO sentryops_auth;
