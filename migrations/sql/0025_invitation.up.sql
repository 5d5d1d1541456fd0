-- A membership in a second organization is an invitation until the account's owner accepts it: whoever made the account
-- first would otherwise own it in every organization that adds it later. An invitation gives no right: it is never active.
ALTER TABLE "user"
    -- True if the owner chose the password; false if it was set for them.
    ADD COLUMN password_own boolean NOT NULL DEFAULT false,
    -- The organization for which the account was made; NULL if that is not known.
    ADD COLUMN created_in   uuid CONSTRAINT user_created_in_fkey REFERENCES organization;
ALTER TABLE membership
    ADD COLUMN state           text NOT NULL DEFAULT 'ACTIVE'
                               CONSTRAINT membership_state_check CHECK (state IN ('ACTIVE', 'INVITED', 'DECLINED')),
    ADD COLUMN invited_at      timestamptz,
    ADD COLUMN invited_by      uuid CONSTRAINT membership_invited_by_fkey REFERENCES "user",
    -- The name that the inviting organization gave: it sees nothing of the account before the invitation is accepted.
    ADD COLUMN invited_name    text,
    -- The password that the inviting organization gave: who accepts shows that the organization meant them.
    ADD COLUMN invitation_hash text,
    ADD CONSTRAINT membership_invitation_check CHECK (state = 'ACTIVE' OR NOT active);

ALTER TABLE "user" NO FORCE ROW LEVEL SECURITY;
ALTER TABLE membership NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entry NO FORCE ROW LEVEL SECURITY;
UPDATE "user" SET
    created_in = (SELECT org_id FROM membership WHERE user_id = "user".id ORDER BY created_at, org_id LIMIT 1),
    password_own = EXISTS (
        SELECT FROM audit_entry
        WHERE entity_type = 'user' AND entity_id = "user".id AND action = 'auth.password_changed'
          AND at >= "user".password_changed_at
          AND org_id IN (SELECT org_id FROM membership WHERE user_id = "user".id)
    );
ALTER TABLE "user" FORCE ROW LEVEL SECURITY;
ALTER TABLE membership FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_entry FORCE ROW LEVEL SECURITY;

REVOKE SELECT ON membership FROM sentryops_app;
GRANT SELECT (org_id, user_id, active, permissions, created_at, state, invited_at, invited_by, invited_name)
    ON membership TO sentryops_app;

-- People as their organization sees them: before an invitation is accepted, what the organization itself wrote.
CREATE VIEW member WITH (security_invoker = true) AS
SELECT membership.org_id, membership.user_id AS id, "user".email,
       coalesce(membership.invited_name, "user".name) AS name,
       membership.active OR membership.state = 'INVITED' AS active,
       membership.state = 'ACTIVE' AND "user".mfa_enabled AS mfa_enabled,
       membership.created_at,
       CASE WHEN membership.state = 'ACTIVE' THEN "user".last_seen_at END AS last_seen_at,
       membership.state
FROM membership JOIN "user" ON "user".id = membership.user_id;
GRANT SELECT ON member TO sentryops_app, sentryops_auth;

CREATE INDEX membership_invited_idx ON membership (invited_at) WHERE state = 'INVITED';
